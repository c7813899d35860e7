-- The pieces of a call that applies a file over a REST API: head, the file's statements, tail. All of it is one
-- transaction and the work of one function, so that nothing here begins or ends one, or sets a role.

-- prepare(lock_timeout_ms, application): what a session of the function's owner would have set, instead of what
-- the API has. Not its limit for whole statements, which counts from the call on: the function lifts that. What
-- temporary tables an earlier request has left in this session would be taken for the file's.
discard temp;
select set_config('lock_timeout', :lock_timeout_ms::text, true),
       set_config('idle_in_transaction_session_timeout', '60s', true),
       set_config('application_name', :application, true);
-- Supabase's API refuses an UPDATE and DELETE without WHERE, for clients' mistakes.
do $safeupdate$
begin
  perform set_config('safeupdate.enabled', 'off', true);
exception when others then
  null;
end
$safeupdate$;

-- fence(name, token, holder): as long as this transaction lives, nobody can take the lease over.
do $fence$
begin
  perform 1 from {schema}.migration_locks
    where name = :name and token = :token and holder = :holder for key share;
  if not found then
    raise exception 'the migration lock was lost' using errcode = 'MG001';
  end if;
end
$fence$;

-- clean(): what the file set for the session must not reach the app's next request, which may be given the same
-- one. Not DEALLOCATE ALL: the API would miss its own prepared statements, whose names are numbers.
set constraints all immediate;
reset all;
do $prepared$
declare
  left_behind text;
begin
  for left_behind in select name from pg_prepared_statements where from_sql loop
    execute format('deallocate %I', left_behind);
  end loop;
end
$prepared$;
unlisten *;
discard temp;
discard sequences;
select pg_advisory_unlock_all();

-- reload(): have the API know what there is now.
notify pgrst, 'reload schema';

-- cancel(application): stop what works for us.
select pg_cancel_backend(pid) as cancelled
  from pg_stat_activity
 where application_name = :application and state = 'active' and pid <> pg_backend_pid();
