NOTIFY pgrst, 'reload schema';
select pg_notify('pgrst', 'reload config');
