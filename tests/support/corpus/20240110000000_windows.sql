create table public.windows (
  id int primary key,
  note text default 'line one
line two'
);
-- a comment
insert into windows (id) values (1);
