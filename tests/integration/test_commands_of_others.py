"""MIGRATION_COMMAND: any program under our lease, limits and log, with real processes."""

import os
import signal
import sys
import time

import asyncpg
import psutil
import pytest

from tests.support.faults import faulty_proxy
from tests.support.pooler import running_pooler
from tests.support.postgres import fetch, private_server
from tests.support.processes import Entrypoint, app, log_lines, run_migrator
from tests.support.programs import environment, is_gone, migrate, output, reason, script, start, written
from tests.support.waiting import wait_until

# A whole tree that ignores SIGTERM: a child in the group, one in a session of its own, and one without a parent.
STUBBORN = """
trap '' TERM
sh -c 'trap "" TERM; echo $$ >> pids; while :; do sleep 0.1; done' &
setsid sh -c 'trap "" TERM; echo $$ >> pids; while :; do sleep 0.1; done' &
(setsid sh -c 'trap "" TERM; echo $$ >> pids; while :; do sleep 0.1; done' &)
echo $$ > main
echo $$ >> pids
while :; do sleep 0.1; done
"""


def pids(directory, count):
    """The pids that a script has written, once they are so many."""
    found = wait_until(
        lambda: text if (text := written(directory / "pids") or "").count("\n") == count else None,
        what=f"{count} pids",
    )
    return [int(line) for line in found.split()]


def holder(url):
    try:
        return fetch(url, "select holder from migrator.migration_locks where holder is not null")
    except asyncpg.UndefinedTableError:
        return []


def test_a_command_is_run_without_files_and_its_output_is_in_the_log(database, tmp_path):
    done = migrate(database, tmp_path, command="sh -c 'echo one; echo two >&2; pwd'")

    assert done.returncode == 0, done.stderr
    assert output(done) == ["one", "two", str(tmp_path)] or set(output(done)) == {"one", "two", str(tmp_path)}
    streams = {line["text"]: line["stream"] for line in log_lines(done.stderr) if "stream" in line}
    assert (streams["one"], streams["two"]) == ("stdout", "stderr")
    assert done.stdout == "sh -c 'echo one; echo two >&2; pwd': done\n"
    assert not holder(database)


def test_it_finds_the_database_and_a_psql_without_arguments_goes_there(database, tmp_path):
    done = migrate(database, tmp_path, command="psql -XAtc 'create table found(); select current_database()'")

    assert output(done)[-1] == database.rsplit("/", 1)[1]
    assert fetch(database, "select 1 from pg_class where relname = 'found'")


def test_words_are_split_and_nothing_is_expanded(database, tmp_path):
    done = migrate(database, tmp_path, command="""printf '%s\\n' "a  b" '$HOME' *""")

    assert output(done) == ["a  b", "$HOME", "*"]


@pytest.mark.parametrize(
    ("command", "extra", "code", "words"),
    [
        ("sh -c 'echo why >&2; exit 3'", {}, 1, "it ended with exit code 3\nwhy"),
        ("sh -c 'exit 75'", {}, 75, "exit code 75"),
        ("sh -c 'exit 69'", {}, 69, "exit code 69"),
        ("sh -c 'exit 3'", {"MIGRATION_RETRY_EXITS": "3"}, 75, "exit code 3"),
        ("sh -c 'exit 75'", {"MIGRATION_RETRY_EXITS": "3"}, 1, "exit code 75"),
        ("sh -c 'kill -SEGV $$'", {}, 1, "was killed by SIGSEGV; out of memory?"),
        ("sh -c 'nonesuch up'", {}, 1, "something that it calls, isn't installed"),
        ("nonesuch up", {}, 78, "'nonesuch' isn't in PATH; install it in this image"),
        ("./not.sh", {}, 78, "'./not.sh' isn't executable; make it executable (chmod +x)"),
        ("./none.sh", {}, 78, "'./none.sh' isn't there"),
        ("./broken", {}, 78, "could not be started: Exec format error; a script begins with #!"),
        ("./windows", {}, 78, "that line ends as on Windows"),
        ("./", {}, 78, "'./' is a directory"),
    ],
)
def test_each_end_has_its_exit_code_and_its_words(database, tmp_path, *, command, extra, code, words):
    (tmp_path / "not.sh").touch()
    (tmp_path / "broken").write_bytes(b"\x7fELF nonsense")
    (tmp_path / "broken").chmod(0o755)
    (tmp_path / "windows").write_bytes(b"#!/bin/sh\r\necho no\r\n")
    (tmp_path / "windows").chmod(0o755)
    done = migrate(database, tmp_path, command=command, **extra)

    assert done.returncode == code, done.stderr
    assert words in reason(done)
    assert "Traceback" not in done.stderr
    assert not holder(database)


def test_no_secret_is_in_log_or_error(database, tmp_path):
    url = database.replace("postgres@", "postgres:s3cr%40t@")
    done = migrate(
        url,
        tmp_path,
        command="sh -c 'env; echo $PGPASSWORD; echo $DATABASE_URL; echo key=$API_KEY >&2; exit 1'",
        API_KEY="sk_live_0123",
    )

    assert done.returncode == 1
    assert "key=***" in reason(done)
    assert len(output(done)) > 10
    for secret in ("s3cr%40t", "s3cr@t", "sk_live_0123"):
        assert secret not in done.stderr + done.stdout


def test_a_long_line_and_a_flood_are_bounded(database, tmp_path):
    done = migrate(
        database,
        tmp_path,
        command="""sh -c 'head -c 300000 /dev/zero | tr "\\0" x; echo; seq 2000; exit 1'""",
    )

    assert max(len(line) for line in output(done)) <= 1000
    assert output(done)[-1] == "2000"
    assert reason(done).endswith("1999\n2000")
    assert len(reason(done)) < 1000


def test_without_a_database_url_a_projects_url_is_not_asked_for(tmp_path):
    project = {"SUPABASE_URL": "http://localhost:1", "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_0123"}
    done = migrate("", tmp_path, command="true", **project)

    assert done.returncode == 78
    assert reason(done).endswith("DIRECT_URL or DATABASE_URL to a postgresql:// URL")


def test_a_flood_of_short_lines_does_not_keep_the_lease_from_being_renewed(database, tmp_path):
    done = migrate(
        database, tmp_path, command="sh -c 'yes | head -c 600000; exit 3'", MIGRATION_LEASE_TTL="4"
    )

    assert done.returncode == 1, done.stderr[-1000:]
    assert "exit code 3" in reason(done)


def test_only_one_of_two_runs_its_command_at_a_time(database, tmp_path):
    """mkdir fails where somebody else is in between."""
    script(
        tmp_path / "once.sh",
        "mkdir inside || exit 9\nwhile ! test -e go; do sleep 0.02; done\nrmdir inside\necho ran >> runs",
    )
    first = start(database, tmp_path, "./once.sh")
    wait_until((tmp_path / "inside").exists, what="the first command")
    second = start(database, tmp_path, "./once.sh")
    assert any("lease.busy" in line for line in second.stderr)
    (tmp_path / "go").touch()
    told = [one.communicate(timeout=30)[1] for one in (first, second)]

    assert (first.returncode, second.returncode) == (0, 0), told
    assert (tmp_path / "runs").read_text() == "ran\nran\n"
    assert "lease.busy" not in told[0]


def test_through_a_transaction_pooler_it_is_the_same(postgres, database, tmp_path):
    script(tmp_path / "once.sh", "mkdir inside || exit 9\nsleep 1\nrmdir inside\necho ran >> runs")
    with running_pooler(postgres) as pooler:
        url = f"{pooler}/{database.rsplit('/', 1)[1]}"
        both = [start(url, tmp_path, "./once.sh", MIGRATION_LEASE_TTL="3") for _ in range(2)]
        told = [one.communicate(timeout=30)[1] for one in both]

    assert [one.returncode for one in both] == [0, 0], told
    assert (tmp_path / "runs").read_text() == "ran\nran\n"


def test_a_pooler_that_falls_silent_ends_the_command_before_the_lease_does(postgres, database, tmp_path):
    script(tmp_path / "long.sh", "echo $$ > pids\nsleep 60")
    with running_pooler(postgres) as pooler:
        url = f"{pooler}/{database.rsplit('/', 1)[1]}"
        one = start(url, tmp_path, "./long.sh", MIGRATION_LEASE_TTL="3")
        (pid,) = pids(tmp_path, 1)
        (process,) = [child for child in psutil.Process().children() if child.name() == "pgbouncer"]
        process.suspend()
        wait_until(lambda: is_gone(pid), what="the end of the command")
        expired = fetch(database, "select expires_at < clock_timestamp() from migrator.migration_locks")
        process.resume()
        _, told = one.communicate(timeout=30)

    assert expired == [(False,)]
    assert one.returncode == 75, told
    assert "couldn't be renewed in time" in told


def test_a_cut_connection_to_a_pooler_means_nothing(postgres, database, tmp_path):
    script(tmp_path / "long.sh", "echo $$ > pids\nwhile ! test -e go; do sleep 0.02; done")
    expires = "select expires_at from migrator.migration_locks"
    with running_pooler(postgres) as pooler, faulty_proxy(f"{pooler}/{database.rsplit('/', 1)[1]}") as proxy:
        one = start(proxy.url, tmp_path, "./long.sh", MIGRATION_LEASE_TTL="6")
        pids(tmp_path, 1)
        proxy.cut()
        assert any("lease.unrenewed" in line for line in iter(one.stderr.readline, ""))
        before = fetch(database, expires)
        wait_until(lambda: fetch(database, expires) > before)
        (tmp_path / "go").touch()
        _, told = one.communicate(timeout=30)

    assert one.returncode == 0, told
    assert not holder(database)


def test_the_lease_outlasts_its_time_while_the_command_runs(database, tmp_path):
    script(tmp_path / "long.sh", "echo $$ > pids\nwhile ! test -e go; do sleep 0.02; done")
    one = start(database, tmp_path, "./long.sh", MIGRATION_LEASE_TTL="0.5")
    pids(tmp_path, 1)
    before = fetch(database, "select expires_at from migrator.migration_locks")[0][0]
    wait_until(lambda: fetch(database, "select expires_at from migrator.migration_locks")[0][0] > before)
    (tmp_path / "go").touch()

    assert one.wait(20) == 0, one.communicate()[1]
    one.communicate()


def test_sigterm_reaches_the_group_and_the_rest_is_killed(database, tmp_path):
    script(tmp_path / "stubborn.sh", STUBBORN)
    one = start(database, tmp_path, "./stubborn.sh", MIGRATION_LEASE_TTL="1.5")
    found = pids(tmp_path, 4)
    one.terminate()
    _, told = one.communicate(timeout=20)

    assert one.returncode == 143
    assert all(is_gone(pid) for pid in found)
    assert "stopped while running ./stubborn.sh" in told
    assert not holder(database)


def test_a_command_that_ends_well_is_given_the_time_to(database, tmp_path):
    script(
        tmp_path / "kind.sh",
        "trap 'echo good >> end; exit 0' TERM\necho $$ > pids\nwhile :; do sleep 0.05; done",
    )
    one = start(database, tmp_path, "./kind.sh")
    pids(tmp_path, 1)
    one.terminate()
    one.communicate(timeout=20)

    assert one.returncode == 143
    assert (tmp_path / "end").read_text() == "good\n"


def test_nothing_outlives_a_killed_migrator(database, tmp_path):
    """By hand, where no supervisor cleans up."""
    script(tmp_path / "stubborn.sh", STUBBORN)
    one = start(database, tmp_path, "./stubborn.sh")
    found = pids(tmp_path, 4)
    one.kill()
    one.communicate(timeout=20)

    wait_until(lambda: all(is_gone(pid) for pid in found), what="their end")
    assert migrate(database, tmp_path, command="true").returncode == 0


def test_a_killed_guard_takes_the_command_and_its_group_along(database, tmp_path):
    script(
        tmp_path / "tool.sh", "sh -c 'echo $$ >> pids; sleep 60' &\necho $$ > main\necho $$ >> pids\nsleep 60"
    )
    one = start(database, tmp_path, "./tool.sh")
    found = pids(tmp_path, 2)
    psutil.Process(int((tmp_path / "main").read_text())).parent().kill()
    _, told = one.communicate(timeout=20)

    assert one.returncode == 1
    assert "it ended, and how isn't known" in told
    wait_until(lambda: all(is_gone(pid) for pid in found), what="their end")


def test_what_a_command_leaves_behind_is_killed(database, tmp_path):
    script(
        tmp_path / "daemon.sh",
        "(setsid sh -c 'echo $$ > pids; sleep 60' &)\nwhile ! test -s pids; do sleep 0.01; done",
    )
    done = migrate(database, tmp_path, command="./daemon.sh")

    assert done.returncode == 0, done.stderr
    assert is_gone(int((tmp_path / "pids").read_text()))
    assert next(line["left"] for line in log_lines(done.stderr) if line["event"] == "runner.exited") >= 1


def test_a_lost_lease_ends_the_command(database, tmp_path):
    script(tmp_path / "long.sh", "echo $$ > pids\nsleep 60")
    one = start(database, tmp_path, "./long.sh", MIGRATION_LEASE_TTL="1.5")
    (pid,) = pids(tmp_path, 1)
    fetch(database, "delete from migrator.migration_locks returning 1")
    _, told = one.communicate(timeout=20)

    assert one.returncode == 75, told
    assert is_gone(pid)
    assert [line["event"] for line in log_lines(told)].count("lease.lost") == 1


def test_a_session_that_is_gone_ends_the_command(database, tmp_path):
    """The server has freed the lock with it: the next one may begin."""
    script(tmp_path / "long.sh", "echo $$ > pids\nsleep 60")
    one = start(database, tmp_path, "./long.sh")
    (pid,) = pids(tmp_path, 1)
    fetch(
        database,
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'migrator/%'",
    )
    _, told = one.communicate(timeout=20)

    assert one.returncode == 69, told
    assert is_gone(pid)
    assert "and with it the migration lock" in told


def test_a_database_that_falls_silent_ends_the_command_before_the_lease_does(tmp_path):
    with private_server() as server:
        script(tmp_path / "long.sh", "echo $$ > pids\nsleep 60")
        one = start(server.url, tmp_path, "./long.sh", MIGRATION_LEASE_TTL="6")
        (pid,) = pids(tmp_path, 1)
        server.process.send_signal(signal.SIGSTOP)
        children = [child.pid for child in psutil.Process(server.process.pid).children()]
        for child in children:
            os.kill(child, signal.SIGSTOP)
        began_s = time.monotonic()
        wait_until(lambda: is_gone(pid), timeout_s=12, what="the end of the command")
        took_s = time.monotonic() - began_s
        for child in [*children, server.process.pid]:
            os.kill(child, signal.SIGCONT)
        one.communicate(timeout=30)

    assert took_s < 11
    assert one.returncode in (69, 75)


def test_by_hand_there_is_a_limit_of_time_too(database, tmp_path):
    done = migrate(database, tmp_path, command="sleep 60", MIGRATION_TIMEOUT="0.5")

    assert done.returncode == 1
    assert "it took more than 0.5 s and was ended" in reason(done)


def test_nothing_can_ask_for_a_password(database, tmp_path):
    done = migrate(database, tmp_path, command="sh -c 'cat; (read x </dev/tty) 2>/dev/null || echo none'")

    assert done.returncode == 0, done.stderr
    assert output(done) == ["none"]


def test_a_migrator_inside_of_a_command_is_told_instead_of_waiting(database, tmp_path):
    done = migrate(
        database,
        tmp_path,
        command=f"{sys.executable} -m migrator up",
    )

    assert done.returncode != 0
    assert "cannot migrate inside of a migration" in done.stderr


@pytest.mark.parametrize("option", [("--dry-run",), ("--to", "1"), ("--json",)], ids=lambda option: option[0])
def test_who_asks_for_a_dry_run_gets_no_real_one(database, tmp_path, option):
    done = migrate(database, tmp_path, "up", *option, command="touch ran")

    assert done.returncode == 78
    assert f"cannot use {option[0]} where MIGRATION_RUNNER is command" in reason(done)
    assert not (tmp_path / "ran").exists()


def test_status_says_that_only_the_command_knows(database, tmp_path):
    plain = migrate(database, tmp_path, "status", command="true")
    as_json = migrate(database, tmp_path, "status", "--json", command="true")

    assert "only the program of command knows" in plain.stdout
    assert '"pending": null' in as_json.stdout
    assert '"migrations": []' in as_json.stdout


def test_under_the_entrypoint_the_status_is_true_and_the_limits_are_the_same(database, tmp_path):
    script(tmp_path / "tool.sh", "echo hello\necho $$ > pids\nwhile ! test -e go; do sleep 0.02; done")
    env = environment(database, "./tool.sh", NODE_ENV="production")
    with Entrypoint(["--", *app("wait")], tmp_path / "state", env, cwd=tmp_path) as one:
        (pid,) = pids(tmp_path, 1)
        running = one.wait_for_phase("applying")["migrations"]
        nice = psutil.Process(pid).nice()
        (tmp_path / "go").touch()
        done = one.wait_for_phase("completed")["migrations"]

    assert (running["applied"], running["pending"], running["current"]) == (None, None, "./tool.sh")
    assert (done["applied"], done["pending"], done["error"]) == (None, None, None)
    assert nice == 10 + os.nice(0)
    assert [line["text"] for line in one.events("runner.output")] == ["hello"]


@pytest.mark.parametrize(
    ("text", "extra", "phase", "words"),
    [
        ("exec sleep 60", {"MIGRATION_TIMEOUT": "1.5"}, "timed_out", "while applying ./tool.sh"),
        (
            "exec python3 -c 'x = b\"x\" * 300_000_000; import time; time.sleep(60)'",
            {"MIGRATION_MAX_MEMORY_MB": "100"},
            "failed",
            "used more than 100 MiB",
        ),
        ("exit 4", {}, "failed", "it ended with exit code 4"),
    ],
    ids=["time", "memory", "exit code"],
)
def test_under_the_entrypoint_it_has_limits(database, tmp_path, *, text, extra, phase, words):
    script(tmp_path / "tool.sh", f"echo $$ > pids\n{text}")
    env = environment(database, "./tool.sh", NODE_ENV="production", **extra)
    with Entrypoint(["--", *app("wait")], tmp_path / "state", env, cwd=tmp_path) as one:
        found = one.wait_for_phase(phase)["migrations"]
        (pid,) = pids(tmp_path, 1)
        wait_until(lambda: is_gone(pid), what="its end")

    assert words in found["error"]


def test_under_the_entrypoint_an_exit_code_that_says_so_is_tried_again(database, tmp_path):
    script(tmp_path / "tool.sh", "echo x >> tries; test $(wc -l < tries) = 3 || exit 75")
    env = environment(database, "./tool.sh", NODE_ENV="production", MIGRATION_RETRY_DELAY="0.1")
    with Entrypoint(["--", *app("wait")], tmp_path / "state", env, cwd=tmp_path) as one:
        found = one.wait_for_phase("completed")["migrations"]

    assert found["attempt"] == 3


def test_under_the_entrypoint_a_killed_migrator_leaves_nothing_and_is_tried_again(database, tmp_path):
    script(tmp_path / "tool.sh", f"test -e pids && exit 0\n{STUBBORN}")
    env = environment(database, "./tool.sh", NODE_ENV="production", MIGRATION_RETRY_DELAY="0.1")
    with Entrypoint(["--", *app("wait")], tmp_path / "state", env, cwd=tmp_path) as one:
        found = pids(tmp_path, 4)
        os.kill(one.wait_for_event("migrator.spawned")["pid"], signal.SIGKILL)
        migrations = one.wait_for_phase("completed")["migrations"]

    assert migrations["attempt"] == 2
    assert all(is_gone(pid) for pid in found)


@pytest.mark.parametrize(
    "command",
    [["plan"], ["down"], ["verify"], ["wait", "--applied", "--timeout", "1"]],
    ids=lambda one: one[0],
)
def test_a_command_that_only_the_tool_could_do_says_so(database, migrations, command):
    done = run_migrator(database, migrations(), *command, MIGRATION_COMMAND="true")

    assert done.returncode == 78
    assert "MIGRATION_RUNNER is command here, and only the program that it runs could do that" in done.stderr
