alter table orders
  alter column details set default '{}',
  add constraint net_is_small check (net < 1000000) not valid;
alter table orders validate constraint net_is_small;
alter table orders rename column tags to labels;
create or replace view open_orders with (security_invoker = true) as select id, net + vat as gross, labels from orders where status = 'open';
analyze orders;
