-- What a person changes by hand. The pieces of a message are `begin` and `fence` of apply.sql, one of these for each
-- change, and `commit`: all of it or nothing, and only as long as the lock is ours.

-- record(version, filename, title, checksum, executed_at, by, token): on record as applied, without being run.
insert into {schema}.migration_history (filename, version, name, checksum, executed_at, executed_by, token, finished)
  values (:filename, :version, :title, :checksum, coalesce(:executed_at::timestamptz, clock_timestamp()), :by,
          :token, true);

-- amend(version, filename, title, checksum, finished, was_checksum, was_finished, was_done, by, token): the row is to say
-- this from now on, if it still says what the person was shown. How far a half-done file came stays.
do $amend$
begin
  update {schema}.migration_history
     set filename = :filename, name = :title, checksum = :checksum, finished = :finished, executed_by = :by,
         token = :token, in_doubt = in_doubt and not :finished
   where version = :version and checksum = :was_checksum and finished = :was_finished
     and statements_done is not distinct from :was_done::integer;
  if not found then
    raise exception 'somebody else changed the history' using errcode = 'MG003';
  end if;
end
$amend$;

-- forget(version, was_checksum, was_finished, was_done): the file is pending again, if the row still says what the
-- person was shown.
do $forget$
begin
  delete from {schema}.migration_history
   where version = :version and checksum = :was_checksum and finished = :was_finished
     and statements_done is not distinct from :was_done::integer;
  if not found then
    raise exception 'somebody else changed the history' using errcode = 'MG003';
  end if;
end
$forget$;

-- lock_state(name, lock_high, lock_low): all that can be known about who holds the lock, and about the session that
-- holds the advisory lock, if there is one.
select l.holder, l.token, l.session,
       extract(epoch from clock_timestamp() - l.locked_at)::float8 as held_s,
       extract(epoch from clock_timestamp() - l.heartbeat_at)::float8 as silent_s,
       extract(epoch from l.expires_at - clock_timestamp())::float8 as expires_in_s,
       k.pid, a.state, a.wait_event,
       extract(epoch from clock_timestamp() - a.state_change)::float8 as state_s,
       left(a.query, 200) as query
  from {schema}.migration_locks as l
  left join pg_locks as k
    on l.session and k.locktype = 'advisory' and k.granted and k.objsubid = 1
   and k.database = (select oid from pg_database where datname = current_database())
   and k.classid = :lock_high::oid and k.objid = :lock_low::oid
  left join pg_stat_activity as a using (pid)
 where l.name = :name and l.holder is not null;

-- end_sessions(application, lock_high, lock_low): of a holder whose lock is taken away, as far as we may: what is
-- at work there is rolled back.
select a.pid, pg_terminate_backend(a.pid) as ended
  from pg_stat_activity as a
 where a.datname = current_database() and a.usename = current_user and a.pid <> pg_backend_pid()
   and (a.application_name = :application
        or a.pid in (select pid
                       from pg_locks
                      where locktype = 'advisory' and granted and objsubid = 1
                        and database = (select oid from pg_database where datname = current_database())
                        and classid = :lock_high::oid and objid = :lock_low::oid));

-- take_away(name, token): the lock is nobody's from now on, and its holder fails its next fence. It never waits for a
-- migration that is just running: no row then.
with held as (
  select name
    from {schema}.migration_locks
   where name = :name and token = :token
     for update skip locked
)
update {schema}.migration_locks as l
   set token = default, holder = null, expires_at = null, session = false
  from held
 where l.name = held.name
returning l.token;

-- undone(): when what isn't applied any more was undone last.
select version, max(undone_at) as undone_at
  from {schema}.migration_undone
 where finished
 group by version;
