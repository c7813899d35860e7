vacuum analyze public.dumped;
create index concurrently "Weird; Index" on public."Weird Name" ("Ünïcödé");
drop index concurrently if exists public.dumped_label_idx;
reindex table concurrently public.orders;
insert into "Weird Name" ("select") values (1), (2);
