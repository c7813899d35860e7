-- Nullable, so that the release that still runs can go on inserting.
alter table products add column price_cents integer check (price_cents >= 0);
