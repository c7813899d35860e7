set check_function_bodies = off;
create function refers_to_what_comes_later() returns bigint language sql as $$ select count(*) from comes_later $$;
create table comes_later (id int);
set session statement_timeout = '5min';
set role service_role;
set local work_mem = '8MB';
reset role;
