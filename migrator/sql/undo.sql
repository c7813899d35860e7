-- The pieces of a message that undoes something. Each stands where one of apply.sql stands in a message that
-- applies: `undo` for `record`, `undo_guard` for `guard`, `undo_steps` for `record_steps`, `undo_progress` for
-- `progress`.

-- applied(): what is on record, the latest first: who depends on another came after it. And how far an undoing
-- came that broke off.
select h.version, h.filename, h.executed_at, h.executed_by, h.finished,
       u.statements_done as undone, u.in_doubt as undoing_in_doubt, u.down_checksum
  from {schema}.migration_history as h
  left join {schema}.migration_undone as u
    on u.version = h.version and u.executed_at = h.executed_at and not u.finished
 order by h.executed_at desc, h.version desc;

-- undo(version, filename, checksum, holder, token): on record before the first statement of the file. Until its
-- end the migration is neither applied nor pending: in doubt, and not by how many statements. That shows only if
-- the file ends the transaction that it was given.
do $undo$
begin
  delete from {schema}.migration_undone where version = :version and not finished; -- see undo_steps
  insert into {schema}.migration_undone (filename, version, name, checksum, executed_at, executed_by, down_filename,
      down_checksum, undone_by, token)
    select filename, version, name, checksum, executed_at, executed_by, :filename, :checksum, :holder, :token
      from {schema}.migration_history
     where version = :version;
  if not found then
    raise exception 'its row in migration_history was deleted meanwhile' using errcode = 'MG003';
  end if;
  update {schema}.migration_history
     set finished = false, statements_done = null, in_doubt = true
   where version = :version;
end
$undo$;

-- undo_guard(version, token): off the record; notices a file that ended the transaction it was given.
do $guard$
begin
  update {schema}.migration_undone
     set finished = true,
         duration_ms = extract(epoch from clock_timestamp() - undone_at) * 1000
   where version = :version and token = :token and not finished
     and xmin = (txid_current() & 4294967295)::text::xid;
  if not found then
    raise exception 'the file ended the transaction it was given' using errcode = 'MG002';
  end if;
  delete from {schema}.migration_history where version = :version;
end
$guard$;

-- undo_steps(version, filename, checksum, holder, token): a file that can't run in one transaction, from its
-- start or where an earlier try came to.
do $undo$
begin
  delete from {schema}.migration_undone as u -- of a row that somebody deleted
   where version = :version and not finished and not exists (
     select from {schema}.migration_history as h where h.version = u.version and h.executed_at = u.executed_at
   );
  update {schema}.migration_undone
     set token = :token, undone_by = :holder
   where version = :version and not finished;
  if not found then
    insert into {schema}.migration_undone (filename, version, name, checksum, executed_at, executed_by,
        down_filename, down_checksum, undone_by, token, statements_done)
      select filename, version, name, checksum, executed_at, executed_by, :filename, :checksum, :holder, :token, 0
        from {schema}.migration_history
       where version = :version;
    if not found then
      raise exception 'its row in migration_history was deleted meanwhile' using errcode = 'MG003';
    end if;
  end if;
  update {schema}.migration_history
     set finished = false, statements_done = null, in_doubt = true
   where version = :version;
end
$undo$;

-- undo_progress(version, token, done, finished, in_doubt): how far such a file is.
set local session authorization default;
set local role none;
do $progress$
begin
  update {schema}.migration_undone
     set statements_done = :done,
         finished = :finished,
         in_doubt = :in_doubt,
         duration_ms = pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() operator(pg_catalog.-) undone_at)
           operator(pg_catalog.*) 1000
   where version operator(pg_catalog.=) :version and token operator(pg_catalog.=) :token and not finished;
  if not found then
    raise exception 'its row in migration_undone was deleted while the file was running'
      using errcode = 'MG003';
  end if;
  if :finished then
    delete from {schema}.migration_history where version operator(pg_catalog.=) :version;
  end if;
end
$progress$;
