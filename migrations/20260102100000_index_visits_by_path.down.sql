-- Can't run in a transaction, either. IF EXISTS: also after a run that broke off half-way.
drop index concurrently if exists visits_path_idx;
