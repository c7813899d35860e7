begin;
create temporary table staging (n int) on commit drop;
insert into staging values (1), (2);
insert into events select n + 200, date '2024-07-01', null from staging;
commit;
create temp table kept as select 5 as n;
insert into events select n + 100, date '2024-06-01', null from kept;
