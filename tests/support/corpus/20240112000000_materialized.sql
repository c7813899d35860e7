create materialized view public.totals as
  select user_id, sum(net + vat) as gross, count(*) as orders from public.orders group by user_id
with data;
create unique index totals_user_id on public.totals (user_id);
refresh materialized view concurrently public.totals;
