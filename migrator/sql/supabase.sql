-- The history of the Supabase CLI, whose table holds version, name and statements; no checksum, no time.

-- exists(): whether there is one. Not by asking it: the server would log an error.
select to_regclass('supabase_migrations.schema_migrations') is not null as found;

-- versions(): what it says is applied.
select version from supabase_migrations.schema_migrations;

-- create(): as the CLI does.
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (
  version    text not null primary key,
  statements text[],
  name       text
);

-- mirror(): what is on our record and not on its. All of it, so that what a crash kept us from writing, or was
-- applied before it was wanted, comes along.
insert into supabase_migrations.schema_migrations (version, name)
select version, name
  from {schema}.migration_history as ours
 where finished and version ~ '^[0-9]+$'
   and not exists (select from supabase_migrations.schema_migrations as theirs where theirs.version = ours.version)
    on conflict (version) do nothing;
