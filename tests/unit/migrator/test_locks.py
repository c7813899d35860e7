"""Who is in the way, and how locks are taken."""

import pytest

from migrator import locks
from migrator.locks import Held, Target, Watching
from migrator.wants import Mode


def held(**given):
    return Held(**{"session": "3/7", "pid": 7, "mode": Mode.ACCESS_SHARE, "age_s": 9.0, **given})


def target(*of, oid=1, name='"public"."a"', mode=Mode.ACCESS_EXCLUSIVE, lockable=True):
    return Target(oid=oid, name=name, mode=mode, lockable=lockable, held=of)


VACUUM = held(
    backend="autovacuum worker", mode=Mode.SHARE_UPDATE_EXCLUSIVE, query="autovacuum: VACUUM public.a"
)
WRAPAROUND = held(
    backend="autovacuum worker",
    mode=Mode.SHARE_UPDATE_EXCLUSIVE,
    query="autovacuum: VACUUM public.a (to prevent wraparound)",
)
HIDDEN_VACUUM = held(mode=Mode.SHARE_UPDATE_EXCLUSIVE, age_s=9.0)


@pytest.mark.parametrize(
    ("one", "spared", "expected"),
    [
        (held(), False, True),
        (held(age_s=0.14), False, False),
        (held(age_s=None), False, False),
        (held(pid=None, age_s=0.01, gid="order"), False, True),
        (VACUUM, False, False),
        (VACUUM, True, True),
        (WRAPAROUND, False, True),
        (HIDDEN_VACUUM, False, False),
        (held(mode=Mode.SHARE_UPDATE_EXCLUSIVE, state="active"), False, True),
        (held(mode=Mode.SHARE_UPDATE_EXCLUSIVE, user="ann"), False, True),
    ],
    ids=[
        "somebody for long",
        "somebody about to let go",
        "of unknown age",
        "a prepared transaction, however young",
        "an autovacuum gives way",
        "unless it didn't",
        "or may not",
        "also one that is hidden from us",
        "nobody else does",
        "nor somebody who is hidden but for a name",
    ],
)
def test_who_is_waited_for_outside_of_the_queue(one, spared, expected):
    assert bool(locks.blockers([target(one, oid=5)], spared={5} if spared else {6})) is expected


def test_the_oldest_is_named_first_and_the_rest_is_counted():
    found = locks.blockers([target(*(held(pid=n, age_s=float(n)) for n in range(1, 6)))], spared=())

    assert locks.described(found) == (
        "pid 5 (transaction open for 5.0 s) holds access share on public.a; "
        "pid 4 (transaction open for 4.0 s) holds access share on public.a; "
        "pid 3 (transaction open for 3.0 s) holds access share on public.a; and 2 more"
    )


@pytest.mark.parametrize(
    ("one", "shown"),
    [
        (
            held(
                application="psql",
                user="ann",
                state="idle in transaction",
                idle_s=312.4,
                query="select 1\nfrom a",
            ),
            "pid 7 (psql, idle in transaction for 312 s, transaction open for 9.0 s, select 1)",
        ),
        (
            held(user="ann", backend="client backend", state="active"),
            "pid 7 (ann, transaction open for 9.0 s)",
        ),
        (
            WRAPAROUND,
            "pid 7 (autovacuum worker, transaction open for 9.0 s, autovacuum: VACUUM public.a (to prevent wraparound))",
        ),
        (held(pid=None, gid="order 5"), "prepared transaction 'order 5' for 9.0 s"),
        (held(age_s=None), "pid 7"),
    ],
)
def test_a_holder_is_told_as_far_as_we_may_see_it(one, shown):
    assert str(one) == shown


def test_a_secret_in_a_holders_query_is_left_whole_for_the_redactor_or_not_shown():
    one = held(query="alter role app password 'hush' " + "x" * 500)

    assert len(str(one)) < 250


def test_a_hidden_age_is_how_long_we_have_seen_it():
    watching = Watching()
    (first,) = watching([target(held(age_s=None))], 10.0)
    (second,) = watching([target(held(age_s=None))], 10.5)
    (other,) = watching([target(held(age_s=None, session="3/8"))], 11.0)

    assert [one.held[0].age_s for one in (first, second, other)] == [0.0, 0.5, 0.0]


def test_a_try_waits_longer_than_the_one_before_but_never_for_the_whole_budget():
    assert [locks.wait_ms(100, attempt) for attempt in (1, 2, 3, 4, 100)] == [30, 50, 70, 70, 70]


A = target(oid=1, name="a")
B = target(oid=2, name="b", mode=Mode.SHARE)
BUSY_B = target(held(age_s=0.01), oid=2, name="b", mode=Mode.SHARE)
BUSY_C = target(held(age_s=0.01), oid=3, name="c")


@pytest.mark.parametrize(
    ("targets", "attempt", "expected"),
    [
        ([], 1, ""),
        ([target(lockable=False)], 1, ""),
        ([target(mode=Mode.ROW_EXCLUSIVE)], 1, ""),
        (
            [A, B],
            1,
            (
                "set local lock_timeout = 60;\nlock table only a in access exclusive mode;\n"
                "lock table only b in share mode nowait;\n"
            ),
        ),
        (
            [A, BUSY_B],
            1,
            (
                "set local lock_timeout = 60;\nlock table only b in share mode;\n"
                "lock table only a in access exclusive mode nowait;\n"
            ),
        ),
        (
            [A, BUSY_B, BUSY_C],
            2,
            (
                "set local lock_timeout = 60;\nlock table only c in access exclusive mode;\n"
                "lock table only a in access exclusive mode nowait;\nlock table only b in share mode nowait;\n"
            ),
        ),
        (
            [A, BUSY_B, BUSY_C],
            4,
            (
                "set local lock_timeout = 30;\nlock table only b in share mode;\n"
                "lock table only c in access exclusive mode;\nlock table only a in access exclusive mode nowait;\n"
            ),
        ),
    ],
    ids=["none", "may not", "too weak to matter", "free", "busy first", "by turns", "each its part"],
)
def test_only_one_table_is_waited_for_until_that_cannot_work(targets, attempt, expected):
    assert locks.taking(targets, 60, attempt) == expected


def test_an_autovacuum_is_cancelled_where_we_may():
    assert "set local deadlock_timeout = 10;\n" in locks.taking(
        [target(VACUUM)], 60, 1, cancels_autovacuum=True
    )


def test_a_file_that_waits_as_long_as_it_takes_has_all_its_locks_wait():
    assert "nowait" not in locks.taking([A, B], 0, 1)


def test_whom_a_long_wait_is_for_is_the_only_one_waited_for():
    vacuumed = target(VACUUM, oid=9, name="z")

    assert locks.taking([BUSY_B, vacuumed], 1300, 4, only=vacuumed) == (
        "set local lock_timeout = 1300;\nlock table only z in access exclusive mode;\n"
        "lock table only b in share mode nowait;\n"
    )


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([(0.0, 1)], 0.0),
        ([(0.0, 1), (0.25, 2), (0.5, 1)], 0.5),
        ([(0.0, 1), (0.25, 1), (0.5, 0), (0.75, 1), (1.0, 1)], 0.5),
        ([(0.0, 1), (0.25, 1), (0.5, 0), (1.25, 0), (1.5, 1), (1.75, 1)], 0.25),
        ([(0.0, 0), (5.0, 1)], 0.0),
    ],
    ids=["at first", "all the time", "come and go", "long ago", "late"],
)
def test_how_long_others_were_kept_waiting_survives_those_who_give_up(looks, expected):
    kept = locks.Kept()

    assert [kept(waiting, now_s) for now_s, waiting in looks][-1] == expected
