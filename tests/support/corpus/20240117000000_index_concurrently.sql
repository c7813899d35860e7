-- This one can't run in a transaction.
CREATE INDEX CONCURRENTLY IF NOT EXISTS dumped_label_idx ON public.dumped (label);
