"""A database as the examples expect it."""

import pytest

from tests.support.postgres import fetch

# What every Supabase project has; roles belong to the whole server.
ROLES = """do $$ begin
  if to_regrole('anon') is null then create role anon nologin; end if;
  if to_regrole('authenticated') is null then create role authenticated nologin; end if;
end $$; select 1"""


@pytest.fixture
def shop(database):
    """The URL of an empty database of a Supabase project, with a password that mustn't be seen."""
    fetch(database, ROLES)
    return database.replace("postgres@", "postgres:s3cret@")
