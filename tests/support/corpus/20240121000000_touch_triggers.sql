create or replace function public.touch() returns trigger language plpgsql as '
begin
  new.touched_at := timestamptz ''2024-01-21'';
  return new;
end';
create trigger touch_orders before update on orders for each row when (old.net is distinct from new.net) execute function touch();
create constraint trigger later after insert on dumped deferrable initially deferred for each row execute function touch();
update orders set net = net + 1;
