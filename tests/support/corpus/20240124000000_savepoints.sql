start transaction;
savepoint before_the_risk;
create table at_risk (id int);
rollback to savepoint before_the_risk;
release savepoint before_the_risk;
create table at_no_risk (id int);
end;
