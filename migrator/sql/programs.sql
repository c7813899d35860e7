-- The pieces for steps that run as programs: they can't share a transaction with their history row. Values are put
-- in as literals. `fence`, `record`, `guard` and `commit` are those of apply.sql.

-- limits(lock_timeout_ms): for a file that psql applies in one transaction; see `begin` in apply.sql.
set local statement_timeout = 0;
set local lock_timeout = :lock_timeout_ms;
set local idle_in_transaction_session_timeout = '60s';

-- begin(version, filename, title, checksum, holder, token): on record before the program starts. In doubt until it
-- has ended, as nobody may live to hear of that. There is a row already where a step may be run again.
insert into {schema}.migration_history
    (filename, version, name, checksum, executed_by, token, in_doubt)
  values (:filename, :version, :title, :checksum, :holder, :token, true)
  on conflict (version) do update
    set filename = excluded.filename, name = excluded.name, checksum = excluded.checksum,
        executed_at = excluded.executed_at, statements_done = null, executed_by = excluded.executed_by, token = excluded.token,
        in_doubt = true
    where not migration_history.finished;

-- ended(version, token, finished): how it ended: well, or not.
update {schema}.migration_history
   set finished = :finished,
       in_doubt = false,
       duration_ms = extract(epoch from clock_timestamp() - executed_at) * 1000
 where version = :version and token = :token and not finished;

-- forget(version, token): it says itself that it may be run again.
delete from {schema}.migration_history where version = :version and token = :token and not finished;
