create table public."Weird Name" ("select" int primary key, "Ünïcödé" text default 'größe', "a""b" int);
comment on table public."Weird Name" is 'it''s; odd -- but legal /* really */';
