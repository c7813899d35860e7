create view public.open_orders with (security_invoker = true) as
  select id, net + vat as gross from public.orders where status = 'open';
