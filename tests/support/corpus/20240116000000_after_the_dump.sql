-- Unqualified on purpose: search_path must be what it was.
alter table dumped add column added int default 7;
create function dumped_label(dumped) returns text language sql immutable begin atomic
  select upper($1.label); -- commit;
end;
create function bodies_are_checked() returns int language sql as 'select 1';
