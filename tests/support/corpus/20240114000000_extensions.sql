do $$
begin
  if exists (select from pg_available_extensions where name = 'pgcrypto') then
    create schema if not exists extensions;
    create extension if not exists pgcrypto with schema extensions;
  end if;
  if exists (select from pg_available_extensions where name = 'uuid-ossp') then
    create extension if not exists "uuid-ossp" with schema extensions;
  end if;
end $$ language plpgsql;
