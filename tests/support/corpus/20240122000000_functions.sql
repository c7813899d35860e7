create or replace function public.total_of(who uuid default auth.uid()) returns numeric
language sql stable security invoker set search_path = public, pg_temp as $_$ select sum(net) from orders where user_id = $1 $_$;
create procedure public.close_orders(inout closed int default 0) language plpgsql as $$
begin
  update orders set status = 'paid' where status = 'open';
  get diagnostics closed = row_count;
end $$;
call public.close_orders();
create aggregate public.longest(text) (sfunc = textcat, stype = text, initcond = '');
create operator public.=== (leftarg = text, rightarg = text, function = texteq);
revoke execute on function public.total_of(uuid) from public;
grant execute on function public.total_of(uuid) to authenticated;
alter default privileges in schema public grant select on tables to anon;
