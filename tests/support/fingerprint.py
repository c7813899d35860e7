"""What a database's catalogs say, object by object, so that two states of it can be told apart.

Everything that a migration can make is in it; what only data changes isn't (rows, statistics, the last value of a
sequence). Rights that are the default are the same whether they are written down or not. Our own schema is left out,
and what the server or an extension brings along.
"""

import hashlib

from tests.support.postgres import fetch

# Kind, name, and what it is. Names are qualified everywhere, as the search path is empty.
_OBJECTS = """
with ours as (
  select oid, nspname from pg_namespace
   where nspname !~ '^pg_' and nspname not in ('information_schema', 'migrator')
), relations as (
  select c.*, quote_ident(n.nspname) || '.' || quote_ident(c.relname) as called
    from pg_class c join ours n on n.oid = c.relnamespace
), of_extension as (
  select classid, objid from pg_depend where deptype = 'e'
)
select 'schema', n.nspname, concat_ws('|', r.rolname,
       (select string_agg(one::text, ',' order by 1) from unnest(coalesce(p.nspacl, acldefault('n', p.nspowner))) one))
  from ours n join pg_namespace p using (oid) join pg_roles r on r.oid = p.nspowner
union all
select 'relation', called, concat_ws('|', relkind, relpersistence, relrowsecurity, relforcerowsecurity,
       relreplident, reloptions, r.rolname,
       (select string_agg(one::text, ',' order by 1) from unnest(coalesce(relacl, acldefault(case relkind when 'S' then 's'::"char" else 'r' end, relowner))) one), reltablespace, relispartition,
       pg_get_expr(relpartbound, c.oid), pg_get_partkeydef(c.oid), am.amname)
  from relations c join pg_roles r on r.oid = relowner left join pg_am am on am.oid = relam
 where relkind in ('r', 'p', 'v', 'm', 'f', 'S', 'c')
union all
select 'view', called, pg_get_viewdef(oid) from relations where relkind in ('v', 'm')
union all
select 'inheritance', c.called, i.inhparent::regclass::text || i.inhseqno
  from pg_inherits i join relations c on c.oid = i.inhrelid
union all
select 'column', c.called || '.' || quote_ident(a.attname), concat_ws('|', a.attnum - (
         select count(*) from pg_attribute d where d.attrelid = a.attrelid and d.attnum between 1 and a.attnum
            and d.attisdropped),
       format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, a.attstorage,
       a.attcompression, a.attstattarget, nullif(a.attacl::text, '{}'), a.attoptions, a.attcollation::regcollation,
       pg_get_expr(d.adbin, d.adrelid))
  from pg_attribute a join relations c on c.oid = a.attrelid
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
 where a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'p', 'v', 'm', 'f', 'c')
union all
select 'constraint', coalesce(conrelid::regclass::text, contypid::regtype::text) || '.' || quote_ident(conname),
       concat_ws('|', pg_get_constraintdef(k.oid), convalidated, condeferrable, condeferred)
  from pg_constraint k join ours n on n.oid = k.connamespace where contype <> 'n'
union all
select 'index', c.called, concat_ws('|', pg_get_indexdef(i.indexrelid), indisvalid, indisready, indislive,
       indisclustered, indisreplident, c.reloptions)
  from pg_index i join relations c on c.oid = i.indexrelid
union all
select 'sequence', c.called, concat_ws('|', seqtypid::regtype, seqstart, seqincrement, seqmax, seqmin, seqcache,
       seqcycle, (select string_agg(refobjid::regclass || '.' || refobjsubid || deptype::text, ',' order by 1)
                    from pg_depend where classid = 'pg_class'::regclass and objid = c.oid
                     and refclassid = 'pg_class'::regclass))
  from pg_sequence s join relations c on c.oid = s.seqrelid
union all
select 'trigger', t.tgrelid::regclass || '.' || quote_ident(tgname), concat_ws('|', pg_get_triggerdef(t.oid), tgenabled)
  from pg_trigger t join relations c on c.oid = t.tgrelid where not tgisinternal
union all
select 'rule', c.called || '.' || quote_ident(rulename), concat_ws('|', pg_get_ruledef(w.oid), ev_enabled)
  from pg_rewrite w join relations c on c.oid = w.ev_class where rulename <> '_RETURN'
union all
select 'policy', polrelid::regclass || '.' || quote_ident(polname), concat_ws('|', polcmd, polpermissive,
       polroles::regrole[], pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) from pg_policy
union all
select 'function', p.oid::regprocedure::text, concat_ws('|', p.prokind,
       case when p.prokind = 'a' then a.aggtransfn::text || coalesce(a.agginitval, '')
            else pg_get_functiondef(p.oid) end, r.rolname,
       (select string_agg(one::text, ',' order by 1) from unnest(coalesce(p.proacl, acldefault('f', p.proowner))) one))
  from pg_proc p join ours n on n.oid = p.pronamespace join pg_roles r on r.oid = proowner
  left join pg_aggregate a on a.aggfnoid = p.oid
 where ('pg_proc'::regclass, p.oid) not in (select classid, objid from of_extension)
union all
select 'type', t.oid::regtype::text, concat_ws('|', typtype, typnotnull, typdefault, r.rolname,
       (select string_agg(one::text, ',' order by 1) from unnest(coalesce(typacl, acldefault('T', typowner))) one),
       format_type(typbasetype, typtypmod),
       (select string_agg(quote_literal(enumlabel), ',' order by enumsortorder) from pg_enum where enumtypid = t.oid),
       (select rngsubtype::regtype from pg_range where rngtypid = t.oid))
  from pg_type t join ours n on n.oid = t.typnamespace join pg_roles r on r.oid = typowner
 where typtype in ('d', 'e', 'r') and ('pg_type'::regclass, t.oid) not in (select classid, objid from of_extension)
union all
select 'extension', extname, concat_ws('|', extversion, extnamespace::regnamespace) from pg_extension
union all
select 'event trigger', evtname, concat_ws('|', evtevent, evtfoid::regproc, evtenabled, evttags) from pg_event_trigger
union all
select 'publication', pubname, concat_ws('|', puballtables, pubinsert, pubupdate, pubdelete, pubtruncate,
       (select string_agg(prrelid::regclass::text, ',' order by 1) from pg_publication_rel where prpubid = p.oid))
  from pg_publication p
union all
select 'statistics', s.stxnamespace::regnamespace || '.' || quote_ident(stxname), pg_get_statisticsobjdef(s.oid)
  from pg_statistic_ext s
union all
select 'default acl', defaclrole::regrole || '.' || coalesce(defaclnamespace::regnamespace::text, '*')
       || defaclobjtype::text, defaclacl::text from pg_default_acl
union all
select 'cast', castsource::regtype || ' as ' || casttarget::regtype, concat_ws('|', castfunc::regproc, castcontext)
  from pg_cast where oid >= 16384
union all
select 'operator', o.oid::regoperator::text, o.oprcode::text
  from pg_operator o join ours n on n.oid = o.oprnamespace
 where ('pg_operator'::regclass, o.oid) not in (select classid, objid from of_extension)
union all
select 'comment', pg_describe_object(classoid, objoid, objsubid), description
  from pg_description where objoid >= 16384
   and pg_describe_object(classoid, objoid, objsubid) !~ '(^| )migrator([.]|$)'
   and (classoid, objoid) not in (select classid, objid from of_extension)
union all
select 'setting', coalesce(d.datname, '*') || '.' || coalesce(r.rolname, '*'), setconfig::text
  from pg_db_role_setting s left join pg_database d on d.oid = s.setdatabase left join pg_roles r on r.oid = s.setrole
 where s.setdatabase = (select oid from pg_database where datname = current_database())
"""


def objects(url: str) -> dict[tuple[str, str], str]:
    """A digest of each object, by kind and name."""
    # One statement, whose path is set within it: `fetch` can only run one that has an answer.
    rows = fetch(f"{url}{'&' if '?' in url else '?'}search_path=pg_catalog", _OBJECTS)
    found = [
        (str(kind), str(name), hashlib.sha256(str(made).encode()).hexdigest()) for kind, name, made in rows
    ]
    return {(kind, name): digest for kind, name, digest in sorted(found)}


def difference(before: dict[tuple[str, str], str], after: dict[tuple[str, str], str]) -> list[str]:
    """What isn't the same: "new table x", one sentence each; empty if nothing is."""
    changed = [key for key in before.keys() & after.keys() if before[key] != after[key]]
    return sorted(
        [f"new {' '.join(key)}" for key in after.keys() - before.keys()]
        + [f"gone {' '.join(key)}" for key in before.keys() - after.keys()]
        + [f"changed {' '.join(key)}" for key in changed]
    )
