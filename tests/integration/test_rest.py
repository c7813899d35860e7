"""Over a real PostgREST behind a real gateway: what differs from a connection."""

import asyncio
import re
import signal
import subprocess
import sys

import pytest

from tests.support.faults import faulty_proxy
from tests.support.postgres import fetch, private_server
from tests.support.postgrest import ROLES, SECRET_KEY, running_project, token
from tests.support.processes import REPO, clean_env, log_lines, run_migrator_by, start_migrator_by
from tests.support.stores import held, install_for_rest
from tests.support.waiting import wait_until

SLEEPS = (
    "select pid, application_name from pg_stat_activity where state = 'active' and wait_event = 'PgSleep'"
    " and datname = current_database()"
)


@pytest.fixture
def bare(postgres, database):
    """A project as it is new."""
    with running_project(postgres, database) as project:
        yield project


@pytest.fixture
def project(bare):
    """A project with our functions."""
    open_door(bare)
    return bare


def open_door(project):
    """Install our functions, and wait until the API knows them."""
    asyncio.run(install_for_rest(project.database))
    wait_until(
        lambda: project.call("migrator_fetch", SECRET_KEY, query="select 1")[0] == 200, what="our functions"
    )


def reason(done):
    failed = ("migration.failed", "command.failed", "settings.refused")
    (line,) = [line for line in log_lines(done.stderr) if line["event"] in failed]
    return line["reason"]


def events(done, name):
    return [line for line in log_lines(done.stderr) if line["event"] == name]


def test_without_our_functions_one_error_names_the_command_that_installs_them(bare, migrations):
    done = run_migrator_by(bare.env(), migrations(_1_a="select 1;"))

    assert done.returncode == 78
    assert (
        "our functions aren't installed there, or are of another version; run `migrator install --rest`"
        in reason(done)
    )


def test_functions_of_another_version_are_the_same_error(project, migrations):
    fetch(
        project.database,
        "drop function public.migrator_apply; create function public.migrator_apply(file text) returns void"
        " language sql as 'select'; notify pgrst, 'reload schema'",
    )
    directory = migrations(_1_a="select 1;")

    wait_until(
        lambda: project.call("migrator_apply", token("service_role"), file="")[0] == 204, what="the reload"
    )
    done = run_migrator_by(project.env(), directory)

    assert done.returncode == 78
    assert "of another version" in reason(done)


def test_what_install_prints_opens_a_new_project_and_can_be_run_again(bare, migrations):
    printed = run_migrator_by({}, "", "install", "--rest", "--print")
    assert printed.returncode == 0, printed.stderr
    for _ in range(2):
        fetch(bare.database, printed.stdout)

    done = run_migrator_by(bare.env(), migrations(_1_a="create table a ();"))

    assert (done.returncode, done.stdout) == (0, "1 applied, 1 in all, nothing pending\n"), done.stderr


def test_install_needs_a_database_url_and_says_so(bare):
    refused = run_migrator_by(bare.env(), "", "install", "--rest")
    done = run_migrator_by({"DATABASE_URL": bare.database}, "", "install", "--rest")

    assert refused.returncode == 78
    assert "migrator install --rest --print" in reason(refused)
    assert done.returncode == 0
    assert "can migrate over the REST API" in done.stdout


def test_install_on_a_database_of_no_project_says_so_and_leaves_no_functions(postgres, database, migrations):
    """Other tests of this server make the role, so that it is taken away for this one."""
    fetch(
        postgres.url,
        "do $$ begin if to_regrole('service_role') is not null then"
        " alter role service_role rename to service_role_away; end if; end $$; select 1",
    )
    try:
        done = run_migrator_by({"DATABASE_URL": database}, "", "install", "--rest")
    finally:
        fetch(
            postgres.url,
            "do $$ begin if to_regrole('service_role_away') is not null then"
            " alter role service_role_away rename to service_role; end if; end $$; select 1",
        )

    assert done.returncode == 78
    assert "this is no database of a Supabase project" in reason(done)
    assert fetch(database, "select to_regproc('public.migrator_apply')") == [(None,)]


def test_an_exec_sql_that_was_there_before_stays_and_an_open_one_is_told(bare):
    fetch(
        bare.database,
        "create function public.exec_sql(query text) returns text language plpgsql security definer as"
        " $$ begin execute query; return 'mine'; end $$; select 1",
    )

    done = run_migrator_by({"DATABASE_URL": bare.database}, "", "install", "--rest")

    assert done.returncode == 0, done.stderr
    (odd,) = events(done, "install.odd")
    assert "anon can call it" in odd["reason"]
    assert fetch(bare.database, "select public.exec_sql('select 1')") == [("mine",)]


@pytest.mark.parametrize("key", ["legacy", "new"])
def test_both_kinds_of_keys_are_let_in_and_neither_is_shown(project, migrations, key):
    held = SECRET_KEY if key == "new" else token("service_role")

    done = run_migrator_by(project.env(held), migrations(_1_a="create table a ();"), LOG_LEVEL="debug")

    assert done.returncode == 0, done.stderr
    assert held not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (token("service_role")[:-3] + "xyz", "cannot use the key for"),
        ("sb_secret_of_another_project", "Invalid API key"),
        (token("anon"), "it holds the key of anon"),
        (token("nobody"), "cannot use"),
    ],
    ids=["forged", "unknown", "anon", "no such role"],
)
def test_a_wrong_key_is_one_error_that_does_not_show_it(project, migrations, key, told):
    done = run_migrator_by(project.env(key), migrations(_1_a="select 1;"))

    assert done.returncode == 78
    assert told in reason(done)
    assert key not in done.stderr


def test_exec_sql_runs_what_service_role_sends_whatever_the_words(project):
    code, _ = project.call(
        "exec_sql", SECRET_KEY, sql="create table a (x text); insert into a values ('; drop')"
    )

    assert code == 204
    assert fetch(project.database, "select x from a") == [("; drop",)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "create table b ();\ncreate index concurrently i on a (id);",
            "'create index concurrently i on a \\(id\\)' can't",
        ),
        ("vacuum;", "'vacuum' can't"),
        ("-- migrator: no-transaction\nselect 1;", "it isn't to"),
        ("-- migrator: role=anon\nselect 1;", "role=...` can't be had"),
        ("-- migrator: timeout=1min\nselect 1;", "timeout=...` can't be had"),
        ("create table b ();\nset role anon;", "line 2, column 1: 'set role anon' can't be in a function"),
        ("reset session authorization;", "can't be in a function"),
        ("deallocate all;", "would take the API its own prepared statements"),
        ("savepoint a;", "can't run in a function"),
        ("copy a from stdin;\n1\n\\.\n", "data of a COPY can't be sent"),
        ("select 1;" + " " * 2**20, "larger than 1 MiB"),
    ],
    ids=lambda value: value[:30],
)
def test_what_one_call_cannot_do_is_refused_before_anything_runs(project, migrations, text, told):
    directory = migrations(_1_a="create table a (id int);", _2_b=text)

    done = run_migrator_by(project.env(), directory)

    assert done.returncode == 65, done.stderr
    assert re.search(told, reason(done))
    assert reason(done).endswith("set DIRECT_URL to a direct connection")
    assert fetch(project.database, "select to_regclass('a'), to_regclass('b')") == [(None, None)]


@pytest.mark.parametrize(
    "text",
    [
        "do $$ begin commit; end $$;",
        "select set_config('role', 'anon', false);",
        "do $$ begin execute 'vacuum'; end $$;",
    ],
)
def test_what_only_the_server_sees_is_told_with_the_same_remedy(project, migrations, text):
    done = run_migrator_by(project.env(), migrations(_1_a=f"create table a ();\n{text}"))

    assert done.returncode == 1
    assert reason(done).startswith("cannot apply 1_a.sql: line 2, column 1: ")
    assert "remedy: it can't run in a function" in reason(done)
    assert reason(done).endswith("rolled back: nothing of this file was applied")
    assert fetch(project.database, "select to_regclass('a')") == [(None,)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("do $$ begin assert false, 'not so'; end $$;", "not so (P0004)"),
        ("select pg_cancel_backend(pg_backend_pid()), pg_sleep(9);", "due to user request (57014)"),
        (
            "do $$ begin raise 'permission denied for function f' using errcode = '42501'; end $$;",
            "permission denied for function f (42501)",
        ),
        (
            "do $$ begin raise 'could not connect to server' using errcode = '08006'; end $$;",
            "could not connect to server (08006)",
        ),
    ],
)
def test_what_a_statement_meets_is_told_as_that_with_its_place(project, migrations, text, told):
    done = run_migrator_by(project.env(), migrations(_1_a=f"create table a ();\n{text}"))

    assert done.returncode == 1, done.stderr
    assert reason(done).startswith("cannot apply 1_a.sql: line 2, column 1: ")
    assert told in reason(done)
    assert reason(done).endswith("rolled back: nothing of this file was applied")
    assert not events(done, "migration.retrying")


def test_an_operator_of_the_file_does_not_keep_it_from_being_put_on_record(project, migrations):
    text = (
        "create function never(text, text) returns bool language sql as 'select false';"
        "create operator public.= (leftarg = text, rightarg = text, function = never);"
        "set search_path = public, pg_catalog;"
    )
    done = run_migrator_by(project.env(), migrations(_1_a=text))

    assert done.returncode == 0, done.stderr
    assert fetch(project.database, "select finished from migrator.migration_history") == [(True,)]


def test_a_file_means_what_it_means_over_a_connection_of_the_owner(project, migrations):
    """Names go where the owner's would, the API's guard against a missing WHERE is off, and who is it?"""
    name = project.database.rsplit("/", 1)[1]
    fetch(
        project.database,
        f"create schema shop; alter role postgres in database {name} set search_path = shop, public; select 1",
    )
    directory = migrations(
        _1_a="begin;\ncreate table a (id int, who text);\ninsert into a values (1, current_user);\ncommit;",
        _2_b="update a set id = 2;\nselect set_config('safeupdate.enabled', current_setting('safeupdate.enabled'), true);",
    )

    done = run_migrator_by(project.env(), directory)

    assert done.returncode == 0, done.stderr
    assert fetch(project.database, "select id, who from shop.a") == [(2, "postgres")]


def test_nothing_of_a_file_stays_in_the_session_of_the_apps_next_request(postgres, database, migrations):
    directory = migrations(
        _1_a="set row_security = off; set search_path = ''; set statement_timeout = 1; prepare mine as select 1;"
        "create temp table left_behind (); listen gossip; select pg_advisory_lock(7);"
    )
    seen = (
        "select pg_backend_pid() as pid, current_setting('row_security') as r, current_setting('application_name') as a,"
        " (select count(*) from pg_prepared_statements where from_sql) as p, to_regclass('pg_temp.left_behind') as t,"
        " (select count(*) from pg_listening_channels()) as l,"
        " (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) as k"
    )
    fetch(postgres.url, f"{ROLES}; select 1")
    asyncio.run(install_for_rest(database))
    # It must not hear of what is new: it would open all its connections anew.
    settings = {"PGRST_DB_POOL": "1", "PGRST_DB_CHANNEL_ENABLED": "false"}
    with running_project(postgres, database, **settings) as project:
        before = project.call("migrator_fetch", SECRET_KEY, query=seen)
        assert before[0] == 200
        done = run_migrator_by(project.env(), directory)
        after = project.call("migrator_fetch", SECRET_KEY, query=seen)

    assert done.returncode == 0, done.stderr
    assert after == before


def test_a_temporary_table_that_a_request_left_behind_is_not_taken_for_the_files(
    postgres, database, migrations
):
    with running_project(postgres, database, PGRST_DB_POOL="1") as project:
        fetch(
            database,
            "create table public.t (x int); create function public.leave() returns void language sql"
            " as 'create temp table t (x int)'; select 1",
        )
        open_door(project)
        wait_until(lambda: project.call("leave", token("anon"))[0] == 204, what="the table")
        done = run_migrator_by(project.env(), migrations(_1_a="insert into t values (1);"))

        assert done.returncode == 0, done.stderr
        assert fetch(database, "select x from public.t") == [(1,)]


def test_the_api_knows_a_new_function_at_once(project, migrations):
    directory = migrations(_1_a="create function public.answer() returns int language sql as 'select 42';")
    assert project.call("answer", SECRET_KEY)[0] == 404

    assert run_migrator_by(project.env(), directory).returncode == 0

    wait_until(lambda: project.call("answer", SECRET_KEY) == (200, 42), what="the new function")


def test_what_outlasts_the_gateway_is_waited_for_and_found_applied(postgres, database, migrations):
    directory = migrations(_1_a="create table a (); select pg_sleep(2);", _2_b="create table b ();")
    with running_project(postgres, database, gateway="proxy_read_timeout 500ms;") as project:
        open_door(project)
        done = run_migrator_by(project.env(), directory)

    assert (done.returncode, done.stdout) == (0, "2 applied, 2 in all, nothing pending\n"), done.stderr
    (settled,) = events(done, "migration.settled")
    assert (settled["filename"], settled["outcome"]) == ("1_a.sql", "applied")


def test_what_outlasts_the_gateway_and_comes_to_nothing_is_said_so_once(postgres, database, migrations):
    directory = migrations(_1_a="create table a (); select pg_sleep(1); select 1 / 0;")
    with running_project(postgres, database, gateway="proxy_read_timeout 300ms;") as project:
        open_door(project)
        done = run_migrator_by(project.env(), directory)

    assert done.returncode == 1, done.stderr
    assert "answers 504: its time for an answer is over" in reason(done)
    assert "set DIRECT_URL to a direct connection" in reason(done)
    assert reason(done).endswith("rolled back: nothing of this file was applied")
    assert fetch(database, "select to_regclass('a')") == [(None,)]


@pytest.mark.parametrize("ends", ["select 1", "select 1 / 0"], ids=["it succeeds", "it fails"])
def test_an_answer_that_is_lost_is_read_from_the_history_and_nothing_is_sent_again(project, migrations, ends):
    directory = migrations(_1_a="create table log (n int);", _2_b=f"insert into log values (2); {ends};")
    with faulty_proxy(project.url) as proxy:
        proxy.deafen_after(b"insert into log")
        env = {**project.env(), "SUPABASE_URL": proxy.url.replace("@", "")}
        done = run_migrator_by(env, directory)

    applied = ends == "select 1"
    assert done.returncode == (0 if applied else 1), done.stderr
    assert events(done, "migration.settled")
    assert fetch(project.database, "select n from log") == ([(2,)] if applied else [])
    if not applied:
        assert "division by zero" in reason(done)  # from the second time, once the first had come to nothing


def test_sigterm_stops_what_is_at_work_on_the_server(project, migrations):
    directory = migrations(_1_a="create table a (); select pg_sleep(60);")
    process = start_migrator_by(project.env(), directory)
    ((_, shown),) = wait_until(lambda: fetch(project.database, SLEEPS), what="the slow migration")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)

    assert process.returncode == 143
    assert "stopped while applying 1_a.sql: rolled back" in err
    assert re.fullmatch(r"migrator/.+/\d+/\w+", str(shown))
    wait_until(lambda: not fetch(project.database, SLEEPS), what="the end of the slow migration")
    assert fetch(project.database, "select to_regclass('a')") == [(None,)]


def test_others_who_hold_its_locks_are_told_and_waited_for_outside_of_the_queue(project, migrations):
    fetch(project.database, "create table a (id int); select 1")
    with held(project.database, "select from a") as let_go:
        process = start_migrator_by(project.env(), migrations(_1_a="alter table a add x int;"))
        line = next(line for line in process.stderr if "lock.awaited" in line)
        let_go()
        out, err = process.communicate(timeout=20)

    assert "idle in transaction" in line
    assert "migration.retrying" not in err  # it looked first
    assert (process.returncode, out) == (0, "1 applied, 1 in all, nothing pending\n"), err


def test_what_keeps_others_waiting_for_too_long_is_cancelled_on_the_server(project, migrations):
    fetch(project.database, "create table a (id int); select 1")
    directory = migrations(_1_a="alter table a add x int; select pg_sleep(60);")
    process = start_migrator_by(project.env(), directory, MIGRATION_MAX_BLOCKING_MS="300")
    wait_until(lambda: fetch(project.database, SLEEPS), what="the slow migration")
    fetch(project.database, "select id from a")  # waits until it is cancelled
    _, err = process.communicate(timeout=20)

    assert process.returncode == 1, err
    assert "as it had kept a session waiting for 300 ms" in err
    assert "rolled back: nothing of this file was applied" in err


def test_a_database_that_is_away_behind_the_api_is_worth_a_retry(migrations):
    with private_server() as server, running_project(server, server.url) as project:
        open_door(project)
        server.stop()
        done = run_migrator_by(project.env(), migrations(_1_a="create table a ();"))

    assert done.returncode == 69, done.stderr
    # A session of the API's pool may have died without its noticing; then that is said first.
    assert re.match(r"(cannot reach|lost the connection to) the database behind 127\.0\.0\.1:", reason(done))


def test_a_redirect_is_not_followed(postgres, database, migrations):
    with running_project(postgres, database, gateway="return 308 http://127.0.0.1:9/;") as project:
        done = run_migrator_by(project.env(), migrations(_1_a="select 1;"))

    assert done.returncode == 78
    assert "redirects to http://127.0.0.1:9/, which isn't followed" in reason(done)


def test_nothing_to_do_takes_no_lease_few_calls_and_no_driver(project, migrations):
    directory = migrations(_1_a="create table a ();")
    run_migrator_by(project.env(), directory)
    calls = (project.directory / "access.log").read_text().count("\n")
    done = run_migrator_by(project.env(), directory, LOG_LEVEL="debug")
    calls = (project.directory / "access.log").read_text().count("\n") - calls
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from migrator import cli; cli.main(['status']); print(sorted(sys.modules))",
        ],
        env=clean_env(MIGRATIONS_DIR=str(directory), **project.env()),
        capture_output=True,
        text=True,
        cwd=REPO,
    ).stdout

    assert (done.returncode, done.stdout) == (0, "0 applied, 1 in all, nothing pending\n")
    assert "lease" not in done.stderr
    assert calls == 1
    assert "'h11'" in loaded
    assert "'asyncpg'" not in loaded
    assert "'migrator.runners'" not in loaded


def test_a_direct_connection_loads_no_http_client(database, migrations):
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from migrator import cli; cli.main(['up']); print(sorted(sys.modules))",
        ],
        env=clean_env(MIGRATIONS_DIR=str(migrations(_1_a="select 1;")), DATABASE_URL=database),
        capture_output=True,
        text=True,
        cwd=REPO,
    ).stdout

    assert "'asyncpg'" in loaded
    for name in ("h11", "migrator.rest", "migrator.http_client", "migrator.endpoint"):
        assert f"'{name}'" not in loaded


def test_the_apis_own_limit_for_a_statement_does_not_count_for_a_file(postgres, database, migrations):
    name = database.rsplit("/", 1)[1]
    with running_project(postgres, database) as project:
        open_door(project)
        fetch(
            database, f"alter role authenticator in database {name} set statement_timeout = '300ms'; select 1"
        )
        fetch(
            database, "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'authenticator'"
        )
        wait_until(
            lambda: project.call("migrator_fetch", SECRET_KEY, query="select 1")[0] == 200, what="it again"
        )
        fetch(
            database, "create function slow() returns void language sql as 'select pg_sleep(1)'; notify pgrst"
        )
        wait_until(lambda: project.call("slow", SECRET_KEY)[0] == 500, what="the limit")
        done = run_migrator_by(project.env(), migrations(_1_a="select pg_sleep(1);"))

    assert done.returncode == 0, done.stderr


def test_the_owner_need_not_be_superuser(postgres, database, migrations):
    """As Supabase's `postgres`, which isn't."""
    name = database.rsplit("/", 1)[1]
    fetch(postgres.url, "create role owner login; select 1")
    fetch(database, f"alter database {name} owner to owner; select 1")
    directory = migrations(_1_a="create table a (who text);", _2_b="insert into a values (current_user);")
    try:
        with running_project(postgres, database) as project:
            installed = run_migrator_by(
                {"DATABASE_URL": database.replace("postgres@", "owner@")}, directory, "install", "--rest"
            )
            assert installed.returncode == 0, installed.stderr
            done = run_migrator_by(project.env(), directory)
            who = fetch(database, "select who from a")
    finally:
        fetch(database, "reassign owned by owner to postgres; drop owned by owner")
        fetch(postgres.url, "drop role owner; select 1")

    assert done.returncode == 0, done.stderr
    assert who == [("owner",)]


def test_hazards_are_told_with_what_the_catalogs_know(project, migrations):
    fetch(
        project.database,
        "create table a (id int); insert into a select generate_series(1, 300000); analyze a",
    )
    directory = migrations(_1_a="alter table a alter column id type bigint;")

    linted = run_migrator_by(project.env(), directory, "lint", "--json")
    done = run_migrator_by(project.env(), directory)

    assert linted.returncode == 65, linted.stderr
    assert "300,000 rows" in linted.stdout
    assert done.returncode == 0, done.stderr
    assert events(done, "hazard.found")


def test_the_history_can_be_changed_by_hand_over_it(project, migrations):
    directory = migrations(_1_a="create table a ();", _2_b="create table b ();")

    based = run_migrator_by(project.env(), directory, "baseline", "1")
    done = run_migrator_by(project.env(), directory)
    forgotten = run_migrator_by(project.env(), directory, "repair", "--not-applied", "2")
    waited = run_migrator_by(project.env(), directory, "wait")
    free = run_migrator_by(project.env(), directory, "unlock")

    assert [one.returncode for one in (based, forgotten, waited, free)] == [0] * 4, based.stderr
    assert done.stdout == "1 applied, 2 in all, nothing pending\n"
    assert fetch(project.database, "select version from migrator.migration_history") == [("1",)]


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (("down",), {}),
        (("up", "--dry-run"), {}),
        (("up",), {"MIGRATION_ROLLBACK_ON_FAILURE": "true"}),
    ],
    ids=["down", "dry run", "rollback"],
)
def test_the_way_back_and_the_dry_run_need_a_connection_and_say_so(project, migrations, arguments, env):
    directory = migrations(_1_a="create table a ();")
    (directory / "1_a.down.sql").write_text("drop table a;")
    if arguments == ("down",):
        run_migrator_by(project.env(), directory)

    done = run_migrator_by(project.env(), directory, *arguments, **env)

    assert done.returncode == 78, done.stderr
    assert reason(done).endswith("over the REST API; set DIRECT_URL to a direct connection")
    assert (fetch(project.database, "select to_regclass('a')") == [(None,)]) is (arguments != ("down",))


def test_plan_shows_what_up_would_do(project, migrations):
    done = run_migrator_by(project.env(), migrations(_1_a="create table a ();"), "plan", "--json")

    assert done.returncode == 0, done.stderr
    assert '"1_a.sql"' in done.stdout
