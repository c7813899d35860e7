"""Twenty replicas at once, some of them killed or frozen at random moments: exactly once, whole or not at all."""

import contextlib
import os
import random
import signal
import time
from collections import Counter

from tests.support.postgres import fetch
from tests.support.processes import log_lines, run_migrator, start_migrator

REPLICAS = 20
KILLS = 7
FREEZES = 3
COUNT = 50
SLOW = {12, 37}
ALONE = {8, 20, 21, 40}
RETRYABLE = (69, 75)


def text_of(number):
    """Two marks, each with the token under which it was made; between them something that takes a moment."""
    mark = f"insert into public.log select {number}, '%s', token, clock_timestamp() from migrator.migration_locks;\n"
    if number == 0:
        return (
            "create table log (n int, mark text, token bigint, at timestamptz);\n" + mark % "a" + mark % "b"
        )
    between = f"select pg_sleep({0.7 if number in SLOW else 0.02});\n"
    if number in ALONE:
        between = f"create index concurrently log_{number} on log (n);\n"
    return mark % "a" + between + mark % "b"


def holder_pid(url):
    """The process that migrates just now; None if nobody does, or there are no tables yet."""
    with contextlib.suppress(Exception):
        rows = fetch(url, "select split_part(holder, '/', 2)::int from migrator.migration_locks")
        return rows[0][0] if rows else None
    return None


def test_every_migration_is_applied_exactly_once_by_twenty_replicas_of_which_some_are_killed(
    database, migrations
):
    seed = int(os.environ.get("REPLICAS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"REPLICAS_SEED={seed}")  # shown if the test fails
    chance = random.Random(seed)
    directory = migrations(**{f"_{number:03}_step": text_of(number) for number in range(COUNT)})
    replicas = [start_migrator(database, directory, MIGRATION_LEASE_TTL="1") for _ in range(REPLICAS)]
    killed, frozen = _torment(database, replicas, chance)
    ended = {one.pid: (one.communicate(timeout=45), one.returncode) for one in replicas}

    untouched = [one.pid for one in replicas if one.pid not in killed | frozen]
    for pid in untouched:
        (out, err), code = ended[pid]
        assert code == 0, err
        assert out.endswith(f"{COUNT} in all, nothing pending\n")
        assert log_lines(err)[-1]["event"] == "migration.completed"
    for pid in frozen:  # its lease was taken over; a supervisor tries again
        assert ended[pid][1] in (0, *RETRYABLE), ended[pid]
    again = run_migrator(database, directory)
    assert again.stdout == f"0 applied, {COUNT} in all, nothing pending\n"

    marks = fetch(database, "select n, mark, token from log order by at")
    assert Counter((n, mark) for n, mark, _ in marks) == {
        (number, mark): 1 for number in range(COUNT) for mark in "ab"
    }
    tokens = [token for _, _, token in marks]
    assert tokens == sorted(tokens)
    assert [n for n, _, _ in marks] == sorted(n for n, _, _ in marks)
    assert fetch(database, "select count(*), bool_and(finished) from migrator.migration_history") == [
        (COUNT, True)
    ]
    assert fetch(
        database, "select count(*), bool_and(indisvalid) from pg_index where indrelid = 'log'::regclass"
    ) == [(len(ALONE), True)]
    assert fetch(database, "select holder from migrator.migration_locks") == [(None,)]


def _torment(url, replicas, chance):
    """Kill and freeze some while there is work; the pids of both."""
    killed, frozen, asleep = set(), set(), {}
    deeds = ["kill"] * KILLS + ["freeze"] * FREEZES
    chance.shuffle(deeds)
    try:
        while deeds and any(one.poll() is None for one in replicas):
            _pause(chance.uniform(0.02, 0.4), asleep)
            alive = [one.pid for one in replicas if one.poll() is None and one.pid not in killed | frozen]
            if len(alive) <= REPLICAS - KILLS - FREEZES:
                break
            holder = holder_pid(url)
            victim = holder if holder in alive and chance.random() < 0.8 else chance.choice(alive)
            if deeds.pop() == "kill":
                killed.add(victim)
                os.kill(victim, signal.SIGKILL)
            else:
                frozen.add(victim)
                os.kill(victim, signal.SIGSTOP)
                asleep[victim] = time.monotonic() + chance.uniform(0.2, 6)
        while asleep:
            _pause(0.05, asleep)
    finally:
        for pid in asleep:
            os.kill(pid, signal.SIGCONT)
    return killed, frozen


def _pause(duration_s, asleep):
    """Let time pass, and wake those whose time has come."""
    time.sleep(duration_s)
    for pid in [pid for pid, until in asleep.items() if time.monotonic() > until]:
        os.kill(pid, signal.SIGCONT)
        del asleep[pid]
