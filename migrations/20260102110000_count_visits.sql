create function visit(seen_path text) returns bigint
language plpgsql
as $$
declare
  seen bigint;
begin
  insert into visits (path) values (seen_path);
  select count(*) into seen from visits where path = seen_path;
  return seen;
end
$$;

comment on function visit(text) is 'Counts a visit; how many there have been so far.';
