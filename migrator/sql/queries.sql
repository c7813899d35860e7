-- Each query is one transaction of its own. None of them waits for a lock of a running migration.

-- history(): everything that is on record. If there is nothing to be seen, one row without a version, which tells
-- whether row-level security is why: a table without policies looks empty to those who don't own it.
select version, filename, checksum, executed_at, finished, statements_done, in_doubt,
       executed_by like 'adopt from %' as adopted,
       version is null and row_security_active('{schema}.migration_history')
         and not exists (select from pg_policy where polrelid = '{schema}.migration_history'::regclass) as hidden
  from (select) as one
  left join {schema}.migration_history on true;

-- lock_session(session_pid, lock_key): the session advisory lock, if it is free; for direct connections. A
-- pooler that swallows our startup parameters is found out here, before the lock is stranded in a session
-- that isn't ours: it names another process in the log-in than the one who answers. Null then.
select case when pg_backend_pid() = :session_pid then pg_try_advisory_lock(:lock_key) end as got;

-- ensure_lock(name): the row must exist before it can be taken; whether it didn't. Not ON CONFLICT DO UPDATE: with
-- a second unique key a concurrent first insert would fail on the other one.
insert into {schema}.migration_locks (name) values (:name) on conflict do nothing returning name;

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

-- broken_indexes(relation_name): the INVALID indexes of a table, or of the table of an index, that nobody is at work on.
select format('%I.%I', n.nspname, c.relname) as name
  from pg_index as i
  join pg_class as c on c.oid = i.indexrelid
  join pg_namespace as n on n.oid = c.relnamespace
 where not i.indisvalid
   and i.indrelid = coalesce((select indrelid from pg_index where indexrelid = to_regclass(:relation_name)),
                             to_regclass(:relation_name))
   and not exists (select from pg_stat_progress_create_index as p where p.index_relid = i.indexrelid);

-- valid_indexes(relation_name): the indexes of a table, each with all that it is but its name.
select format('%I.%I', n.nspname, c.relname) as name,
       overlay(made placing '' from position(quote_ident(c.relname) in made) for length(quote_ident(c.relname)))
         || ' ' || c.reltablespace as meant
  from pg_index as i
  join pg_class as c on c.oid = i.indexrelid
  join pg_namespace as n on n.oid = c.relnamespace
  cross join pg_get_indexdef(c.oid) as made
 where i.indisvalid and i.indrelid = to_regclass(:relation_name);

-- partition_state(parent_name, child_name): whether a table is a partition of another, and one that a broken DETACH
-- PARTITION CONCURRENTLY has left half detached. No row: one of them isn't there.
select i.inhrelid is not null as attached,
       coalesce((to_jsonb(i) ->> 'inhdetachpending')::bool, false) as pending
  from (select to_regclass(:parent_name) as parent, to_regclass(:child_name) as child) as named
  left join pg_inherits as i on i.inhparent = named.parent and i.inhrelid = named.child
 where named.parent is not null and named.child is not null;

-- look(wanted): who holds what a file will ask for, in a way that it would have to wait. Each relation that it
-- will lock is a row, or several if several hold it. It waits for nobody, and needs no right beyond seeing
-- pg_locks; what pg_stat_activity hides from us comes as null.
with recursive wanted as (
  select name, mode, kind, part, only_itself
    from json_to_recordset(:wanted::json) as w(name text, mode int, kind text, part text, only_itself bool)
), named as (
  select to_regclass(name)::oid as oid, mode, kind, part, only_itself
    from wanted
   where kind not in ('domain', 'schema')
), meant (oid, mode, only_itself) as (
  select oid, mode, only_itself from named where oid is not null
  union
  select i.indrelid, n.mode, true from named as n join pg_index as i on i.indexrelid = n.oid where n.kind = 'index'
  union
  -- Dropping a foreign key, by whatever means, locks both its ends.
  select case k.conrelid when n.oid then k.confrelid else k.conrelid end, n.mode, true
    from named as n
    join pg_constraint as k on k.contype = 'f' and n.oid in (k.conrelid, k.confrelid)
   where n.kind = 'drop'
      or n.kind = 'truncate' and k.confrelid = n.oid
      or n.kind = 'constraint' and k.conname = n.part and k.conrelid = n.oid
      or n.kind = 'column' and exists (
           select from pg_attribute as a
            where a.attrelid = n.oid and a.attname = n.part
              and a.attnum = any (case k.conrelid when n.oid then k.conkey else k.confkey end))
  union
  select p.partdefid, 8, false from named as n join pg_partitioned_table as p on p.partrelid = n.oid
   where n.kind = 'partitioned' and p.partdefid <> 0
  union
  select a.attrelid, w.mode, true
    from wanted as w
    join pg_attribute as a on a.atttypid = to_regtype(w.name)::oid
    join pg_class as c on c.oid = a.attrelid
   where w.kind = 'domain' and c.relkind in ('r', 'm')
  union
  select c.oid, w.mode, true
    from wanted as w
    join pg_namespace as s on s.oid = to_regnamespace(w.name)::oid
    join pg_class as c on c.relnamespace = s.oid
   where w.kind = 'schema' and c.relkind in ('r', 'p', 'v', 'm')
), family (oid, mode, only_itself) as (
  select oid, mode, only_itself from meant
  union
  select i.inhrelid, f.mode, false
    from family as f
    join pg_inherits as i on i.inhparent = f.oid
   where not f.only_itself
), target as (
  select oid, max(mode) as mode from family group by oid
), modes (name, number, conflicts) as (
  values ('AccessShareLock', 1, array[8]),
         ('RowShareLock', 2, array[7, 8]),
         ('RowExclusiveLock', 3, array[5, 6, 7, 8]),
         ('ShareUpdateExclusiveLock', 4, array[4, 5, 6, 7, 8]),
         ('ShareLock', 5, array[3, 4, 6, 7, 8]),
         ('ShareRowExclusiveLock', 6, array[3, 4, 5, 6, 7, 8]),
         ('ExclusiveLock', 7, array[2, 3, 4, 5, 6, 7, 8]),
         ('AccessExclusiveLock', 8, array[1, 2, 3, 4, 5, 6, 7, 8])
), held as (
  select l.relation, l.pid, l.virtualtransaction, m.number as mode, m.conflicts
    from pg_locks as l
    join modes as m on m.name = l.mode
   where l.locktype = 'relation' and l.granted and l.pid is distinct from pg_backend_pid()
     and l.database = (select oid from pg_database where datname = current_database())
)
select t.oid::int8 as oid, s.nspname as schema_name, c.relname as table_name, t.mode, c.relkind in ('r', 'p')
         and has_table_privilege(t.oid, 'update') and has_table_privilege(t.oid, 'delete')
         and has_table_privilege(t.oid, 'truncate') as lockable,
       h.virtualtransaction as session, h.pid, h.mode as held_mode, a.application_name, a.usename, a.state,
       a.backend_type, left(a.query, 1000) as query,
       extract(epoch from clock_timestamp() - coalesce(a.xact_start, x.prepared))::float8 as age_s,
       extract(epoch from clock_timestamp() - a.state_change)::float8 as state_age_s, x.gid
  from target as t
  join pg_class as c on c.oid = t.oid
  join pg_namespace as s on s.oid = c.relnamespace
  left join held as h on h.relation = t.oid and t.mode = any (h.conflicts)
  left join pg_stat_activity as a on a.pid = h.pid
  left join pg_locks as own on h.pid is null and own.pid is null and own.locktype = 'transactionid'
        and own.virtualtransaction = h.virtualtransaction
  left join pg_prepared_xacts as x on x.transaction = own.transactionid
 order by t.oid, h.pid;

-- waiting(label): who waits for what is at work under that label, and for what; and whether it waits itself. Over a
-- REST API the label is its application_name.
select w.pid, m.pid as ours, l.locktype, l.relation::regclass::text as table_name, l.mode
  from pg_stat_activity as m
  join pg_stat_activity as w on w.wait_event_type = 'Lock' and (w.pid = m.pid or m.pid = any (pg_blocking_pids(w.pid)))
  left join pg_locks as l on l.pid = w.pid and not l.granted
 where m.datname = current_database() and m.state = 'active' and m.pid <> pg_backend_pid()
   and (m.usename = current_user and starts_with(m.query, :label) or m.application_name = :label);

-- end_idle(pid, idle_s): end a session that does nothing in its transaction, if it does so still.
select pg_terminate_backend(pid) as ended
  from pg_stat_activity
 where pid = :pid and state in ('idle in transaction', 'idle in transaction (aborted)')
   and clock_timestamp() - state_change >= make_interval(secs => :idle_s);

-- is_bare(schema_name): whether there is nothing that anybody could hold a lock on, but for our own tables.
select not exists (
  select from pg_class as c
    join pg_namespace as s on s.oid = c.relnamespace
   where c.relkind in ('r', 'p', 'v', 'm', 'f')
     and s.nspname <> 'information_schema' and s.nspname not like 'pg\_%'
     -- The schema may be one that others use, too.
     and not (
       s.nspname = :schema_name and c.relname in ('migration_locks', 'migration_history', 'migration_undone')
     )
) as bare;
