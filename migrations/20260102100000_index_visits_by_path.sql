-- Can't run in a transaction; the migrator finds that out by itself.
create index concurrently visits_path_idx on visits (path, visited_at);
