DO $do$
DECLARE
  t record;
BEGIN
  FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename IN ('orders', 'profiles') ORDER BY 1 LOOP
    EXECUTE format('alter table public.%I add column if not exists touched_at timestamptz', t.tablename);
    EXECUTE format($sql$comment on column public.%I.touched_at is 'by DO; not by hand'$sql$, t.tablename);
  END LOOP;
EXCEPTION
  WHEN undefined_table THEN RAISE NOTICE 'nothing there';
END
$do$;
