-- The doors through which migrations come over the REST API of a Supabase project. Whoever may call these
-- functions may do anything that their owner may: that is service_role alone. Run it as the role that is to own
-- what migrations create (postgres), as often as you like.

-- migrator_search_path: where the owner's own sessions look for names. It is set inside of the doors: what they
-- call themselves isn't looked for there.
create or replace function public.migrator_search_path()
  returns text
  language sql
  stable
  set search_path = pg_catalog, pg_temp
as $function$
  select coalesce((
    select substr(one, length('search_path=') + 1)
      from pg_db_role_setting as s, unnest(s.setconfig) as one
     where starts_with(one, 'search_path=')
       and s.setdatabase in (0, (select oid from pg_database where datname = current_database()))
       and s.setrole in (0, (select oid from pg_roles where rolname = current_user))
     order by s.setrole = 0, s.setdatabase = 0
     limit 1
  ), '"$user", public')
$function$;

-- migrator_fetch: the rows of one query, as JSON. Temporary tables, of whoever had this session before, come last.
create or replace function public.migrator_fetch(query text)
  returns jsonb
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
  set statement_timeout = '15s'
as $function$
declare
  found jsonb;
begin
  perform set_config('search_path', public.migrator_search_path() || ', pg_temp', true);
  execute 'with answer as (' || query || E'\n) select coalesce(jsonb_agg(to_jsonb(answer)), ''[]'') from answer'
     into found;
  return found;
end
$function$;

-- migrator_apply: a file between our fence and our history, whole or not at all. An error says in its detail
-- which statement it was: 0 before the file, one more than there are after it. A limit of time would count from
-- the call on, whatever is set in here; 0 is none.
create or replace function public.migrator_apply(head text, statements text[], tail text)
  returns void
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
  set statement_timeout = 0
as $function$
declare
  number integer := 0;
  statement text;
  code text;
  said text;
  more text;
  advice text;
  place text;
begin
  perform set_config('search_path', public.migrator_search_path(), true);
  execute head;
  foreach statement in array statements loop
    number := number + 1;
    execute statement;
  end loop;
  number := number + 1;
  execute tail;
-- `others` are all but these two: an ASSERT of the file, and a cancellation.
exception when others or assert_failure or query_canceled then
  get stacked diagnostics code = returned_sqlstate, said = message_text, more = pg_exception_detail,
    advice = pg_exception_hint, place = pg_exception_context;
  raise exception using errcode = code, message = said, hint = advice,
    detail = jsonb_build_object('statement', number, 'detail', more, 'context', left(place, 2000));
end
$function$;

-- exec_sql: for scripts of your own. One that was there before, and isn't ours, is left as it is.
do $exec_sql$
begin
  if exists (
    select from pg_proc
     where pronamespace = 'public'::regnamespace and proname = 'exec_sql'
       and obj_description(oid, 'pg_proc') is distinct from 'migrator: runs SQL; for service_role only'
  ) then
    raise warning 'public.exec_sql was there before and is left as it is; see who may call it';
    return;
  end if;
  create or replace function public.exec_sql(sql text)
    returns void
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
  as $function$
  begin
    perform set_config('search_path', public.migrator_search_path() || ', pg_temp', true);
    execute sql;
  end
  $function$;
  comment on function public.exec_sql(text) is 'migrator: runs SQL; for service_role only';
end
$exec_sql$;

comment on function public.migrator_search_path() is 'migrator: where names are looked for; for service_role only';
comment on function public.migrator_fetch(text) is 'migrator: the rows of a query; for service_role only';
comment on function public.migrator_apply(text, text[], text) is 'migrator: applies a file; for service_role only';

-- By name: Supabase grants new functions to anon and authenticated by default privileges, which a revoke from
-- public leaves; others may have been given something in that way as well.
do $close$
declare
  door regprocedure;
  grantee text;
begin
  for door in
    select p.oid::regprocedure from pg_proc as p
     where p.pronamespace = 'public'::regnamespace and p.proname in ('migrator_fetch', 'migrator_apply', 'migrator_search_path', 'exec_sql')
       and obj_description(p.oid, 'pg_proc') like 'migrator: %'
  loop
    for grantee in
      select 'public' union
      select quote_ident(r.rolname)
        from pg_proc as p, aclexplode(p.proacl) as a join pg_roles as r on r.oid = a.grantee
       where p.oid = door and a.grantee <> p.proowner
    loop
      execute format('revoke all on function %s from %s', door, grantee);
    end loop;
    if to_regrole('service_role') is null then
      raise exception 'there is no role service_role here: this is no database of a Supabase project';
    end if;
    execute format('grant execute on function %s to service_role', door);
    if has_function_privilege('public', door, 'execute') then
      raise exception '% can still be called by everybody', door;
    end if;
    for grantee in select rolname from pg_roles where rolname in ('anon', 'authenticated', 'authenticator') loop
      if has_function_privilege(grantee, door, 'execute') then
        raise exception '% can still be called by %; is that role a member of service_role?', door, grantee;
      end if;
    end loop;
  end loop;
end
$close$;

-- What nobody is granted needs no policy, but advisors ask for one where row-level security is on.
do $policies$
declare
  ours text;
begin
  foreach ours in array array['migration_locks', 'migration_history', 'migration_undone'] loop
    if not exists (
      select from pg_policy where polrelid = format('{schema}.%I', ours)::regclass
    ) then
      execute format('create policy nobody on {schema}.%I using (false)', ours);
    end if;
  end loop;
end
$policies$;

notify pgrst, 'reload schema';
