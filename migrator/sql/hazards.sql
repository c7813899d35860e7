-- What the catalogs know of what pending files name. Nobody is waited for: sizes, which need a lock, are asked
-- only of tables that nobody has locked against readers, and with a lock_timeout.

-- facts(names, exact): one row of JSON. `names` is a JSON array; relations, types, functions and schemas of
-- these names. `exact` false: sizes as they were at the last VACUUM or ANALYZE, without any lock.
with recursive limits as materialized (select set_config('lock_timeout', '100ms', true) as limited),
wanted as materialized (
  select distinct value as name from json_array_elements_text(:names::json)
),
named as materialized (
  select c.oid, c.relkind from pg_class c join wanted w on c.relname = w.name
    join pg_namespace n on n.oid = c.relnamespace
   where n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast') and c.relpersistence <> 't'
),
domains as materialized (
  select t.oid from pg_type t join wanted w on t.typname = w.name where t.typtype = 'd'
),
shown as materialized (
  select oid from named
   union select i.indrelid from pg_index i join named on named.oid = i.indexrelid
   union select p.partdefid from pg_partitioned_table p join named on named.oid = p.partrelid where p.partdefid <> 0
   union select a.attrelid from pg_attribute a join pg_class c on c.oid = a.attrelid
          where (select count(*) from domains) > 0  -- or else all columns would be read for nothing
            and a.atttypid in (select oid from domains) and c.relkind in ('r', 'p', 'm') and not a.attisdropped
),
tree as (
  select oid as root, oid as member from shown
   union select tree.root, i.inhrelid from tree join pg_inherits i on i.inhparent = tree.member
),
locked as materialized (
  select distinct relation from pg_locks where mode = 'AccessExclusiveLock' and relation is not null
),
sizes as materialized (
  select tree.root,
         sum(case when :exact and c.relkind in ('r', 'm', 't') and l.relation is null
                  then pg_total_relation_size(c.oid)
                  else greatest(c.relpages, 0)::bigint * current_setting('block_size')::int end)::bigint as size_bytes,
         sum(case when :exact and c.relkind in ('r', 'm') and l.relation is null then pg_relation_size(c.oid)
                  else greatest(c.relpages, 0)::bigint * current_setting('block_size')::int end)::bigint as heap_bytes,
         sum(case when c.relkind in ('r', 'm') then
               case when c.reltuples > 0 then c.reltuples::bigint
                    else greatest(pg_stat_get_live_tuples(c.oid), 0) end end)::bigint as row_count
    from limits, tree join pg_class c on c.oid = tree.member left join locked l on l.relation = c.oid
   group by tree.root
)
select current_setting('server_version_num')::int as server_version,
       current_setting('TimeZone') as timezone,
       coalesce(current_schema(), 'public') as default_schema,
       (select count(*) = 2 from pg_roles where rolname in ('anon', 'authenticated')) as has_api_roles,
       coalesce((select json_agg(n.nspname) from pg_namespace n join wanted w on w.name = n.nspname), '[]')::text
         as schemas,
       coalesce((select json_agg(json_build_object(
         'schema', n.nspname, 'name', t.typname, 'kind', t.typtype,
         'constrained', t.typnotnull or (t.typtype = 'd' and exists (
           select from pg_constraint k where k.contypid = t.oid))))
         from pg_type t join wanted w on w.name = t.typname join pg_namespace n on n.oid = t.typnamespace
         left join pg_class c on c.oid = t.typrelid
        where (t.typtype in ('d', 'e', 'r') or c.relkind = 'c') and n.nspname <> 'pg_catalog'), '[]')::text as types,
       coalesce((select json_agg(json_build_object('name', f.proname, 'volatility', f.volatility, 'stored_in', (
           select coalesce(json_agg(distinct d.objid::regclass::text), '[]')
             from pg_depend d join pg_proc p on p.oid = d.refobjid and p.proname = f.proname
             join pg_class c on c.oid = d.objid and c.relkind in ('i', 'I')
            where d.refclassid = 'pg_proc'::regclass and d.classid = 'pg_class'::regclass)))
         from (select p.proname, max(p.provolatile::text) as volatility from pg_proc p
                 join wanted w on w.name = p.proname group by p.proname) f), '[]')::text as functions,
       coalesce((select json_agg(json_build_object(
         'schema', n.nspname, 'name', c.relname, 'kind', c.relkind, 'visible', pg_table_is_visible(c.oid),
         'size_bytes', s.size_bytes, 'heap_bytes', s.heap_bytes, 'rows', s.row_count, 'row_security', c.relrowsecurity,
         'policies', (select count(*) from pg_policy o where o.polrelid = c.oid),
         'default_of', (select d.partdefid from pg_partitioned_table d where d.partrelid = c.oid), 'oid', c.oid,
         'index_of', (select json_build_array(tn.nspname, tc.relname) from pg_index i
                        join pg_class tc on tc.oid = i.indrelid join pg_namespace tn on tn.oid = tc.relnamespace
                       where i.indexrelid = c.oid),
         'columns', (select json_agg(json_build_object('name', a.attname, 'number', a.attnum,
                        'type', t.typname, 'typmod', a.atttypmod, 'not_null', a.attnotnull, 'default', a.atthasdef))
                       from pg_attribute a join pg_type t on t.oid = a.atttypid
                      where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
                        and c.relkind in ('r', 'p', 'm', 'f')),
         'statistics', (select json_object_agg(s.attname, json_build_array(s.null_frac, s.most_common_freqs[1], s.n_distinct))
                          from pg_stats s where s.schemaname = n.nspname and s.tablename = c.relname
                           and s.inherited = (c.relkind = 'p')),
         'constraints', (select json_agg(json_build_object('name', k.conname, 'kind', k.contype, 'columns', k.conkey,
                        'valid', k.convalidated, 'refers_to', case when k.confrelid <> 0 then k.confrelid::regclass::text end,
                        'test', case when k.contype = 'c' and k.conbin::text like '%{NULLTEST %' then k.conbin::text end))
                       from pg_constraint k where k.conrelid = c.oid),
         'indexes', (select json_agg(json_build_object('name', ic.relname, 'columns', i.indkey::int2[], 'valid', i.indisvalid,
                        'unique', i.indisunique and i.indpred is null,
                        'plain', i.indexprs is null and i.indpred is null,
                        'involved', (select json_agg(distinct d.refobjsubid) from pg_depend d
                                      where d.classid = 'pg_class'::regclass and d.objid = i.indexrelid
                                        and d.refclassid = 'pg_class'::regclass and d.refobjid = i.indrelid
                                        and d.refobjsubid > 0)))
                       from pg_index i join pg_class ic on ic.oid = i.indexrelid where i.indrelid = c.oid)))
         from shown join pg_class c on c.oid = shown.oid join pg_namespace n on n.oid = c.relnamespace
         left join sizes s on s.root = c.oid), '[]')::text as relations;
