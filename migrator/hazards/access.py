"""Who may see which rows. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from migrator.hazards import tree
from migrator.hazards.finding import Finding
from migrator.hazards.seen import Seen
from migrator.hazards.tree import Node

# What PostgREST serves in a Supabase project unless it is set otherwise.
_EXPOSED = "public"


def create_table(seen: Seen) -> Iterator[Finding]:
    """A table that a Supabase project serves to the world."""
    relation = seen.node.get("relation") or seen.node["into"]["rel"]
    facts = seen.world.facts
    if not (facts.has_api_roles if facts else seen.in_supabase) or relation.get("relpersistence") == "t":
        return
    schema = relation.get("schemaname") or (seen.world.path or (seen.world.default_schema,))[0]
    key = (schema, relation["relname"])
    if schema != _EXPOSED or key in seen.secured:
        return
    if seen.node.get("if_not_exists") and facts is not None and seen.world.relation(key) is not None:
        return
    table = tree.relation_name(relation)
    yield seen.finding(
        "table-without-rls",
        f"whoever has the project's public key reads and writes {table} through the API: no pending file enables "
        "row-level security on it",
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;\n-- and a policy for those who shall see rows of it",
    )


def enable_row_security(seen: Seen, command: Node) -> Iterator[Finding]:
    """ENABLE ROW LEVEL SECURITY without a policy."""
    if command["subtype"] != "AT_EnableRowSecurity":
        return
    relation = seen.node["relation"]
    found = seen.table(relation)
    if found is None or found[1] is None or found[1].policies or found[1].row_security or found[1].is_empty:
        return
    later = [node["table"] for kind, node in seen.rest if kind == "CreatePolicyStmt"]
    if found[0] in seen.world.policies or any(seen.world.key(one) == found[0] for one in later):
        return
    table = tree.relation_name(relation)
    yield seen.finding(
        "rls-without-policy",
        f"there is no policy for {table}, so that everybody but its owner sees an empty table from that moment on",
        f"-- before, in the same file:\nCREATE POLICY {tree.quoted(relation['relname'] + '_all')} ON {table} TO <role> "
        f"USING (true);\n{seen.statement.text};",
    )
