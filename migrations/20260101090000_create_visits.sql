-- What the demo app counts.
create table visits (
  id bigint generated always as identity primary key,
  path text not null,
  visited_at timestamptz not null default now()
);
