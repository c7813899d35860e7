"""Whether the one who holds the lock lives."""

import pytest

from migrator import holding
from migrator.holding import State


def row(**fields):
    base = {
        "holder": "web-2/41/3fa2c1",
        "token": 7,
        "session": True,
        "held_s": 90.0,
        "silent_s": 4.0,
        "expires_in_s": 26.0,
        "pid": 812,
        "state": "active",
        "wait_event": None,
        "state_s": 60.0,
        "query": "select 1",
    }
    return base | fields


LATE = {"expires_in_s": -1.0, "silent_s": 31.0}
NO_SESSION = {"session": False, "pid": None, "state": None, "state_s": None, "query": None}


@pytest.mark.parametrize(
    ("fields", "state", "may_be_taken"),
    [
        pytest.param({}, State.ALIVE, False, id="a heartbeat in time"),
        pytest.param({"pid": None}, State.DEAD, True, id="its session has ended"),
        pytest.param(LATE, State.WORKING, False, id="silent, but the server works for it"),
        pytest.param({**LATE, "state": "idle"}, State.FROZEN, True, id="silent and idle"),
        pytest.param(
            {**LATE, "wait_event": "ClientRead"}, State.FROZEN, True, id="silent in the middle of a file"
        ),
        pytest.param(
            {**LATE, "state": "idle", "state_s": 1.0}, State.WORKING, False, id="idle only just now"
        ),
        pytest.param(NO_SESSION, State.ALIVE, False, id="behind a pooler, with a heartbeat in time"),
        pytest.param({**NO_SESSION, **LATE}, State.DEAD, True, id="behind a pooler, silent"),
    ],
)
def test_a_holder_lives_as_long_as_its_heartbeat_or_its_work(fields, state, may_be_taken):
    held = holding.of(row(**fields))

    assert held.state is state
    assert held.may_be_taken is may_be_taken


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "web-2/41/3fa2c1 took it 90 s ago and was last heard of 4 s ago: alive"),
        ({"pid": None, "held_s": 600.0, "silent_s": 7300.0}, "web-2/41/3fa2c1 took it 10 min ago and was last heard of 2 h ago: dead"),
        (LATE, "web-2/41/3fa2c1 took it 90 s ago and was last heard of 31 s ago; the server (pid 812) still works for it"),
        (LATE | {"state": "idle", "silent_s": 864000.0}, "web-2/41/3fa2c1 took it 90 s ago and was last heard of 10 days ago: frozen (server pid 812 is idle)"),
    ],
)  # fmt: skip
def test_a_holder_is_told_in_one_line(fields, told):
    assert str(holding.of(row(**fields))) == told


@pytest.mark.parametrize(
    ("query", "doing"),
    [
        (None, None),
        ("select  1\n+ 1", "runs: select 1 + 1"),
        ("/* migrator: 1_a b.sql */ begin; set local statement_timeout = 0", "is at 1_a b.sql"),
        ("/* migrator: cut", "runs: /* migrator: cut"),
        ("select " + "word " * 40, "runs: select" + " word" * 14 + " [...]" + " word" * 7),
    ],
)
def test_what_its_session_is_at(query, doing):
    assert holding.of(row(query=query)).doing == doing
