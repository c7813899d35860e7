-- The pieces of a dry run: everything in one transaction, which is rolled back.

-- begin(): its transaction.
begin;
set local idle_in_transaction_session_timeout = '60s';

-- unlimited(): as in apply.sql.
set local transaction_timeout = 0;

-- pid(): which session of the server it is in.
select pg_backend_pid() as pid;

-- probe(): an error unless that transaction is open: nothing may run outside of it.
savepoint rehearsal;
release savepoint rehearsal;

-- limits(lock_timeout_ms): for one file. Whatever the role's own limits are.
set local statement_timeout = 0;
set local lock_timeout = :lock_timeout_ms;

-- end(): nothing is kept. Session locks are outside of any transaction.
rollback;
select pg_advisory_unlock_all();

-- watch(pid): end the transaction of that session as soon as somebody waits for it, within a hundredth of a
-- second. For one second; then a new call goes on. It looks from within the server, as a look from a distant
-- client would come too late. CREATE INDEX CONCURRENTLY waits for us here as well.
do $watch$
declare
  until timestamptz := clock_timestamp() + interval '1 s';
begin
  while clock_timestamp() < until loop
    if exists (
      select from pg_locks
       where not granted and pid <> :pid and array[:pid, pg_backend_pid()] && pg_blocking_pids(pid)
    ) then
      begin
        perform pg_terminate_backend(:pid);
      exception when insufficient_privilege then
        null; -- then the client's cancellation has to do
      end;
      raise exception 'somebody waits for a lock' using errcode = 'MG004';
    end if;
    perform pg_sleep(0.01);
  end loop;
end
$watch$;
