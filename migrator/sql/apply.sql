-- The pieces of a message that applies something. Values are put in as literals: a message of several
-- statements can't have parameters. A whole file: begin, record, the file, finish or guard, clean, commit.

-- begin(lock_timeout_ms): whatever the role's own limits are.
begin;
set local statement_timeout = 0;
set local lock_timeout = :lock_timeout_ms;
set local idle_in_transaction_session_timeout = '60s';

-- unlimited(): as that, where there is such a limit: it would end the session (PostgreSQL 17).
set local transaction_timeout = 0;

-- begin_pooled(): notice that the pooler has dropped us, for this transaction; a direct session has it set. Where
-- the server can't (before PostgreSQL 14, not on every system), it works on to the end. What an earlier client
-- of the pooler has left in this session, a search_path or temporary tables, would say what the file's names mean.
discard temp;
set local search_path to default;
do $check$
begin
  perform set_config('client_connection_check_interval', '1s', true);
exception when others then
  null;
end
$check$;

-- fence(name, token, holder): as long as this transaction lives, nobody can take the lease over. For files that
-- run statement by statement: an earlier one may have set a role that can't read our tables and that the next
-- one is to run under. Names are told apart as in `finish`.
do $fence$
declare
  role_before text := pg_catalog.current_setting('role');
  session_before text := pg_catalog.current_setting('session_authorization');
begin
  set local session authorization default;
  set local role none;
  perform 1 from {schema}.migration_locks
    where name operator(pg_catalog.=) :name and token operator(pg_catalog.=) :token
      and holder operator(pg_catalog.=) :holder for key share;
  if not found then
    raise exception 'the migration lock was lost' using errcode = 'MG001';
  end if;
  -- Only where a file has changed it: servers older than November 2024 forget the role when they take it back.
  if pg_catalog.current_setting('session_authorization') operator(pg_catalog.<>) session_before then
    perform pg_catalog.set_config('session_authorization', session_before, true);
  end if;
  perform pg_catalog.set_config('role', role_before, true);
end
$fence$;

-- record(name, token, holder, version, filename, title, checksum): fence and history row in one. Without the
-- lease there is no version to be had, and a null is refused there (23502): half as dear as a DO block, which is
-- compiled each time. On record before the first statement of the file, and the primary key is a lock of its
-- own: two can't apply one version.
insert into {schema}.migration_history (filename, version, name, checksum, executed_by, token)
  values (
    :filename,
    (select :version from {schema}.migration_locks
      where name = :name and token = :token and holder = :holder for key share),
    :title, :checksum, :holder, :token);

-- record_after(after, name, token, holder, version, filename, title, checksum): as that, for what is sent before
-- the server has answered for the file before it. Unless that one was the last to be committed in this session
-- (`chain`), there is no file name to be had. Its row would tell the same, for twice as much.
insert into {schema}.migration_history (filename, version, name, checksum, executed_by, token)
  values (
    case when pg_catalog.current_setting('migrator.applied', true) = :after then :filename end,
    (select :version from {schema}.migration_locks
      where name = :name and token = :token and holder = :holder for key share),
    :title, :checksum, :holder, :token);

-- prepare(): `record`, `record_after` and `finish` as statements that the session keeps, so that they are planned
-- once and not for each file: a third of what we add to one. Whatever is left there of an earlier try goes first.
deallocate all;
prepare migrator_record (text, text, text, text, bigint, text, text, text) as
  insert into {schema}.migration_history (filename, version, name, checksum, executed_by, token)
    values (
      case when $1 is null or pg_catalog.current_setting('migrator.applied', true) = $1 then $2 end,
      (select $3 from {schema}.migration_locks
        where name = $4 and token = $5 and holder = $6 for key share),
      $7, $8, $6, $5);
prepare migrator_finish (text, bigint) as
  update {schema}.migration_history
     set finished = true,
         duration_ms = extract(epoch from pg_catalog.clock_timestamp() - executed_at) * 1000
   where version operator(pg_catalog.=) $1 and token operator(pg_catalog.=) $2;

-- prepared_record(after, filename, version, name, token, holder, title, checksum): as `record_after`; as `record`
-- where `after` is null.
execute migrator_record (:after, :filename, :version, :name, :token, :holder, :title, :checksum);

-- prepared_finish(version, token): as `finish`.
execute migrator_finish (:version, :token);

-- limit(lock_timeout_ms): how long the file's own statements may wait for a lock, after those that took the ones
-- that it needs.
set local lock_timeout = :lock_timeout_ms;

-- timeout(timeout_ms): what the file asks for itself.
set local statement_timeout = :timeout_ms;

-- role(role): who the file asks to be run by. Last before the file: it may not be allowed to write our history.
select set_config('role', :role, true);

-- session(timeout_ms): as `timeout`, for statements that can't run in a transaction.
set statement_timeout = :timeout_ms;

-- session_role(role): as `role`, for statements that can't run in a transaction.
select set_config('role', :role, false);

-- setting(setting, value): what the database URL asks for, where a pooler refuses it for the session. Last
-- before the file, so that nothing of ours depends on it.
select set_config(:setting, :value, true);

-- unrole(): the file's role goes first, since it may not be allowed to write our history. In this order: with its
-- session authorization an older server resets the role to none, and not to what the login has.
reset session authorization;
reset role;

-- finish(version, token): for a file in which nothing can end its transaction. Names of what it may have put
-- before pg_catalog in its search_path, operators too, are told apart.
update {schema}.migration_history
   set finished = true,
       duration_ms = extract(epoch from pg_catalog.clock_timestamp() - executed_at) * 1000
 where version operator(pg_catalog.=) :version and token operator(pg_catalog.=) :token;

-- guard(version, token): for others. Notices a file that ended the transaction it was given: the history row isn't of
-- this transaction then. (Not a setting: dumps end in RESET ALL.)
do $guard$
begin
  update {schema}.migration_history
     set finished = true,
         duration_ms = extract(epoch from pg_catalog.clock_timestamp() - executed_at) * 1000
   where version operator(pg_catalog.=) :version and token operator(pg_catalog.=) :token
     -- Before PostgreSQL 13 there is no pg_current_xact_id(), and no cast from this one: it has 32 bits more.
     and xmin operator(pg_catalog.=)
       (pg_catalog.txid_current() operator(pg_catalog.&) 4294967295)::pg_catalog.text::pg_catalog.xid;
  if not found then
    raise exception 'the file ended the transaction it was given' using errcode = 'MG002';
  end if;
end
$guard$;

-- clean(): what a file set for its session must not reach the next one, nor a pooler's next client.
set constraints all immediate;
reset all;
close all;
unlisten *;
discard temp;
discard sequences;

-- forget(): the statements that a file has prepared, and ours with them.
deallocate all;

-- clean_pooled(): not on direct connections: there one of these is our own.
select pg_advisory_unlock_all();

-- unlock(lock_key): as that, for direct connections: all but our own.
do $unlock$
declare
  held record;
begin
  set local client_min_messages = error; -- unlocking once too often, and a transaction's own lock, is a warning
  for held in
    select *, classid::bigint << 32 | objid::bigint as key,
        (classid::bigint << 32 >> 32)::int as high, (objid::bigint << 32 >> 32)::int as low
      from pg_locks
     where locktype = 'advisory' and pid = pg_backend_pid()
       and not (objsubid = 1 and classid::bigint << 32 | objid::bigint = :lock_key)
  loop
    while case
      when held.objsubid = 1 and held.mode = 'ExclusiveLock' then pg_advisory_unlock(held.key)
      when held.objsubid = 1 then pg_advisory_unlock_shared(held.key)
      when held.mode = 'ExclusiveLock' then pg_advisory_unlock(held.high, held.low)
      else pg_advisory_unlock_shared(held.high, held.low)
    end loop
    end loop;
  end loop;
end
$unlock$;

-- hasty(): a later commit of this run waits for the disk, and all before it with it, as the log that it waits
-- for is written in order. Until then a crash of the server loses a tail of what was applied, each with its
-- history row; the next run applies it again. After `clean`, which resets everything.
set local synchronous_commit = off;

-- chain(version): for `record_after`. A setting of the session, which is committed or not like everything else;
-- after `clean`, which forgets the one before.
set migrator.applied = :version;

-- record_steps(version, filename, title, checksum, holder, token): a file that can't run in one
-- transaction, from its start or where an earlier run came to.
insert into {schema}.migration_history (filename, version, name, checksum, executed_by, token, statements_done)
  values (:filename, :version, :title, :checksum, :holder, :token, 0)
  on conflict (version) do update set token = excluded.token, executed_by = excluded.executed_by;

-- progress(version, token, done, finished, in_doubt): how far such a file is. In doubt: the next statement
-- has been sent, and can't share a transaction with the word that it is done.
set local session authorization default;
set local role none;
do $progress$
begin
  update {schema}.migration_history
     set statements_done = :done,
         finished = :finished,
         in_doubt = :in_doubt,
         duration_ms = pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() operator(pg_catalog.-) executed_at)
           operator(pg_catalog.*) 1000
   where version operator(pg_catalog.=) :version and token operator(pg_catalog.=) :token;
  if not found then
    raise exception 'the row in migration_history was deleted while the file was running'
      using errcode = 'MG003';
  end if;
end
$progress$;

-- commit(): the end of each message.
commit;
