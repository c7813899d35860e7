set row_security = off;
insert into orders (user_id, net) values ('00000000-0000-0000-0000-000000000001', 99.99) returning id;
set row_security = on;
with moved as (update orders set details = '{"seen": true}' where net > 50 returning id)
insert into events select id + 1000, date '2024-12-24', '{"from": "cte"}' from moved;
