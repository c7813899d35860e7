-- Other tools' tables are only read, never written.

-- tables(table_name): those that bear the name of a migration tool's history, with their columns; or the one that is
-- named. Not in every schema: Supabase keeps such tables of its own services in auth, storage and _realtime.
select n.nspname::text as schema_name, c.relname::text as table_name,
       array_agg(a.attname::text order by a.attnum) as columns
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
  join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
 where c.relkind in ('r', 'p')
   and case
         when :table_name::text is not null then c.oid = to_regclass(:table_name)
         else n.nspname = any (array['public', 'supabase_migrations', 'drizzle'] || current_schemas(false)::text[])
          and c.relname in ('schema_migrations', 'ar_internal_metadata', 'goose_db_version', 'flyway_schema_history',
                            '_prisma_migrations', 'pgmigrations', 'knex_migrations', '__drizzle_migrations',
                            'migration_history')
       end
 group by 1, 2
 order by 1, 2;

-- entries(): every row, without what may be large.
select (to_jsonb(t) - 'statements' - 'logs')::text as entry from {schema}.{table} as t;
