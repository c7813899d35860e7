-- Each query is one transaction of its own. None of them waits for a lock of a running migration.

-- history(): everything that is on record.
select version, filename, checksum, executed_at, finished, statements_done, in_doubt
  from {schema}.migration_history;

-- lock_session(session_pid, lock_key): the session advisory lock, if it is free; for direct connections. A
-- pooler that swallows our startup parameters is found out here, before the lock is stranded in a session
-- that isn't ours: it names another process in the log-in than the one who answers. Null then.
select case when pg_backend_pid() = :session_pid then pg_try_advisory_lock(:lock_key) end as got;

-- ensure_lock(name): the row must exist before it can be taken. Not ON CONFLICT DO UPDATE: with a
-- second unique key a concurrent first insert would fail on the other one.
insert into {schema}.migration_locks (name) values (:name) on conflict do nothing;

-- acquire(name, holder, session, ttl_s, lock_key): take the lease, if its holder is gone or silent.
-- SKIP LOCKED: a row locked by a running migration counts as held, however late its heartbeat.
with free as (
  select name
    from {schema}.migration_locks
   where name = :name
     and (holder is null
          or (session and pg_try_advisory_xact_lock(:lock_key))
          or (not session and expires_at < clock_timestamp()))
     for update skip locked
)
update {schema}.migration_locks as l
   set token = default,
       holder = :holder,
       session = :session,
       locked_at = clock_timestamp(),
       heartbeat_at = clock_timestamp(),
       expires_at = clock_timestamp() + make_interval(secs => :ttl_s)
  from free
 where l.name = free.name
returning l.token;

-- renew(name, token, holder, ttl_s, lock_high, lock_low): a heartbeat. Only non-key columns, so it passes a
-- running migration. And for how long the session that works has been idle; null if it has ended.
update {schema}.migration_locks
   set heartbeat_at = clock_timestamp(),
       expires_at = clock_timestamp() + make_interval(secs => :ttl_s)
 where name = :name and token = :token and holder = :holder
returning session, (
  select case a.state when 'idle' then extract(epoch from clock_timestamp() - a.state_change) else 0 end::float8
    from pg_locks as k
    left join pg_stat_activity as a using (pid)
   where k.locktype = 'advisory' and k.granted and k.objsubid = 1
     and k.database = (select oid from pg_database where datname = current_database())
     and k.classid = :lock_high::oid and k.objid = :lock_low::oid
   limit 1
) as idle_s;

-- unfenced(name, token, holder): whether no transaction of ours is at work. It never waits.
select 1
  from {schema}.migration_locks
 where name = :name and token = :token and holder = :holder
   for update skip locked;

-- release(name, token, holder): give the lease back.
update {schema}.migration_locks
   set holder = null, expires_at = null, session = false
 where name = :name and token = :token and holder = :holder
returning token;

-- holder(name, lock_high, lock_low): who migrates, for people, and whether there is a point in trying to take
-- its lease: it is alive as long as its lease, or its session if it has one.
select holder, extract(epoch from clock_timestamp() - locked_at)::float8 as held_s,
       expires_at > clock_timestamp() and (not session or exists (
         select from pg_locks
          where locktype = 'advisory' and granted and objsubid = 1
            and database = (select oid from pg_database where datname = current_database())
            and classid = :lock_high::oid and objid = :lock_low::oid
       )) as is_alive
  from {schema}.migration_locks
 where name = :name and holder is not null;

-- evict(name, lock_high, lock_low): end the sessions of a holder that is frozen: its lease ran out,
-- and it hasn't been executing anything for a while. What it wakes up to is a closed connection.
-- Without the while, it would hit a contender that is just about to take a dead holder's lease. In the middle
-- of a file that is sent in parts it is the client that is waited for: the next part, or the data of a COPY.
select pg_terminate_backend(a.pid) as ended
  from pg_locks as k
  join pg_stat_activity as a using (pid)
  join {schema}.migration_locks as l on l.name = :name
 where k.locktype = 'advisory' and k.granted and k.objsubid = 1
   and k.database = (select oid from pg_database where datname = current_database())
   and k.classid = :lock_high::oid and k.objid = :lock_low::oid
   and l.session and l.expires_at < clock_timestamp()
   and (a.state = 'idle' or a.state in ('active', 'idle in transaction') and a.wait_event = 'ClientRead')
   and a.state_change < clock_timestamp() - interval '3 s'
   and a.usename = current_user and a.pid <> pg_backend_pid();

-- index_state(schema_name, index_name, table_name): is there an index of that name on that table, and is it
-- valid?
select n.nspname as schema_name, i.indisvalid as valid
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
  join pg_index as i on i.indexrelid = c.oid
 where c.relname = :index_name
   and i.indrelid = to_regclass(:table_name)
   and case when :schema_name::text is null then pg_table_is_visible(c.oid) else n.nspname = :schema_name end;
