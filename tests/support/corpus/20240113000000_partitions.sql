create table public.events (id bigint not null, at date not null, payload jsonb) partition by range (at);
create table events_2023 partition of events for values from ('2023-01-01') to ('2024-01-01');
create table events_2024 partition of events for values from ('2024-01-01') to ('2025-01-01');
create table events_other partition of events default;
create index on events (at);
alter table events add primary key (id, at);
insert into events select n, date '2023-12-30' + n, '{}' from generate_series(1, 5) n;
