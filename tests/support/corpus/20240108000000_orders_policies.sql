alter table orders enable row level security;
alter table orders force row level security;
create policy own_orders on orders as permissive for all to authenticated
  using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));
create policy no_drafts on orders as restrictive for select to anon using (status <> 'draft');
drop policy if exists "does not exist" on orders;
grant select, insert on orders to authenticated;
grant all on orders to service_role;
revoke delete on orders from authenticated;
grant usage, select on all sequences in schema public to authenticated;
