"""The migrator child and the reaper with real processes.

Each test runs in an interpreter of its own: the reaper waits for every child of its process, and
pytest's are none of its business.
"""

import json
import sys
import textwrap

from tests.support.processes import REPO, clean_env, finished

SETUP = """
import asyncio, json, os, signal, sys, time
from entrypoint import cgroup, child as children, launch, policy
from entrypoint.child import Child, Migrator
from entrypoint.policy import Limits
from entrypoint.reaper import Reaper
from migrator import log as logs

log = logs.configure(component="test", level="debug", console=False, to_stdout=False, mask=str)
app = launch.App(["true"], frozenset())
orphans = []
reports = []

def migrator(code):
    one = Migrator(app.others, reports.append, log)
    one._argv = [sys.executable, "-I", "-S", "-c", code]
    return one

def limits(timeout_s=20.0, memory=10**12):
    return Limits(attempts=1, retry_delay_s=1, timeout_s=timeout_s, memory_limit_bytes=memory)

def fds():
    return sorted(os.listdir("/proc/self/fd"))

async def run(code, **given):
    reaper = Reaper(lambda pid, status: orphans.append((pid, status)))
    reaper.install(asyncio.get_running_loop())
    one = migrator(code)
    before = fds()
    outcome = await one.run(reaper, limits(**given))
    async with asyncio.timeout(5):
        while launch.signal_group(one.pid, 0):  # killed, but not reaped yet
            await reaper.next_exit(0.05)
    assert fds() == before, "descriptors leaked"
    assert app.others == set()
    # One that arrives while the loop is being closed is written about on stderr.
    asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
    return one, outcome

def told(**found):
    print(json.dumps(found))
"""


def run_alone(code):
    """What the code tells, and the log lines it wrote, in an interpreter of its own."""
    done = finished(
        [sys.executable, "-c", SETUP + textwrap.dedent(code)], env=clean_env(), cwd=REPO, timeout_s=30
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), [json.loads(line) for line in done.stderr.splitlines()]


def test_every_report_arrives_and_the_last_one_counts_even_right_before_the_exit():
    found, _ = run_alone("""
        one, outcome = asyncio.run(run('''if 1:
            import os
            for n in range(500):
                os.write(3, b'{"phase": "applying", "applied": %d}\\\\n' % n)
            os.write(3, b'{"phase": "completed", "applied": 500}\\\\n')
            os._exit(0)'''))
        told(count=len(reports), applied=outcome.last.applied, code=outcome.code, cause=outcome.cause)
    """)

    assert found == {"count": 501, "applied": 500, "code": 0, "cause": "exited"}


def test_what_is_no_report_is_skipped_with_one_warning():
    found, lines = run_alone("""
        one, outcome = asyncio.run(run('''if 1:
            import os
            os.write(3, b"nonsense\\\\n\\\\xff\\\\n{}\\\\n" + b"[" * 100000 + b"\\\\n")
            os.write(3, b'{"phase": "completed", "applied": true}\\\\n')
            os.write(3, b'{"phase": "connecting", "of the future": 1}\\\\n{"phase": "appl')
            os._exit(3)'''))
        told(phases=[report.phase for report in reports], code=outcome.code)
    """)

    assert found == {"phases": ["connecting"], "code": 3}
    assert [line["event"] for line in lines].count("report.unreadable") == 1


def test_a_grandchild_that_holds_the_pipe_open_doesnt_delay_the_end():
    found, _ = run_alone("""
        began = time.monotonic()
        one, outcome = asyncio.run(run('''if 1:
            import os, time
            if os.fork() == 0:
                os.setsid()
                os.close(1)
                os.close(2)
                time.sleep(6)
            os._exit(0)'''))
        told(quick=time.monotonic() - began < 4, code=outcome.code)
    """)

    assert found == {"quick": True, "code": 0}


def test_a_child_that_overstays_is_asked_and_then_killed_with_its_group():
    found, _ = run_alone("""
        policy.MIGRATOR_GRACE_S = 0.3
        one, outcome = asyncio.run(run('''if 1:
            import os, signal, time
            signal.signal(signal.SIGTERM, lambda *_: os.write(3, b'{"phase": "aborted"}\\\\n'))
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                time.sleep(60)''', timeout_s=0.5))
        told(cause=outcome.cause, code=outcome.code, last=outcome.last.phase, group=launch.signal_group(one.pid, 0))
    """)

    assert found == {"cause": "deadline", "code": 137, "last": "aborted", "group": False}


def test_a_child_over_its_memory_is_killed_and_so_is_what_it_started():
    found, lines = run_alone("""
        children.LOOK_INTERVAL_S = 0.05
        one, outcome = asyncio.run(run('''if 1:
            import os, time
            if os.fork() == 0:
                eaten = b"x" * 60_000_000
            time.sleep(60)''', memory=40_000_000))
        told(cause=outcome.cause, code=outcome.code)
    """)

    assert found == {"cause": "memory", "code": 137}
    assert [line["event"] for line in lines].count("migrator.over_memory") == 1


def test_a_child_that_is_gone_before_its_memory_is_looked_at_has_just_ended():
    found, _ = run_alone("""
        import psutil  # loaded, so that the first look comes at once
        codes = []
        async def main():
            reaper = Reaper(lambda *_: None)
            reaper.install(asyncio.get_running_loop())
            for _ in range(20):
                one = migrator("pass")
                one._argv = ["true"]
                start = one.start
                def and_wait(*given):
                    exited = start(*given)
                    while not exited.done():
                        reaper.reap()
                    return exited
                one.start = and_wait
                codes.append((await one.run(reaper, limits())).code)
        asyncio.run(main())
        told(codes=codes)
    """)

    assert found == {"codes": [0] * 20}


def test_a_child_that_cant_be_started_is_an_outcome_without_a_leak():
    found, _ = run_alone("""
        async def main():
            reaper = Reaper(lambda *_: None)
            one = migrator("")
            one._argv = ["/no/such/interpreter"]
            before = fds()
            outcome = await one.run(reaper, limits())
            told(cause=outcome.cause, detail=outcome.detail, leaked=fds() != before)
        asyncio.run(main())
    """)

    assert found["cause"] == "not started"
    assert "No such file" in found["detail"]
    assert not found["leaked"]


def test_a_second_cancellation_kills_the_child_instead_of_leaving_it():
    found, _ = run_alone("""
        async def main():
            reaper = Reaper(lambda *_: None)
            reaper.install(asyncio.get_running_loop())
            before = fds()
            one = migrator('''if 1:
                import os, signal, time
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                os.write(3, b'{"phase": "connecting"}\\\\n')
                time.sleep(60)''')
            task = asyncio.create_task(one.run(reaper, limits()))
            while not reports:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.wait({task})
            async with asyncio.timeout(5):
                while app.others:
                    await reaper.next_exit(0.1)
            told(cancelled=task.cancelled(), leaked=fds() != before)
        asyncio.run(main())
    """)

    assert found == {"cancelled": True, "leaked": False}


def test_the_child_has_a_group_of_its_own_and_no_standard_input():
    found, _ = run_alone("""
        asyncio.run(run('''if 1:
            import os, json
            facts = [os.getpgrp() == os.getpid(), os.readlink("/proc/self/fd/0"), sorted(os.listdir("/proc/self/fd"))[:4]]
            os.write(3, json.dumps({"phase": "connecting", "error": str(facts)}).encode() + b"\\\\n")'''))
        told(facts=reports[0].error)
    """)

    assert found["facts"] == "[True, '/dev/null', ['0', '1', '2', '3']]"


def test_the_report_pipe_may_already_have_the_number_that_the_child_knows_it_by():
    # dup2 of a descriptor onto itself would leave it close-on-exec.
    found, _ = run_alone("""
        async def main():
            reaper = Reaper(lambda *_: None)
            reaper.install(asyncio.get_running_loop())
            read_fd, write_fd = os.pipe()
            os.close(read_fd)
            os.close(write_fd)
            children.REPORT_FD = write_fd  # where the next pipe's end will be
            one = migrator(f'''if 1:
                import os
                os.write({children.REPORT_FD}, b'{{"phase": "completed"}}\\\\n')''')
            outcome = await one.run(reaper, limits())
            told(phase=outcome.last and outcome.last.phase)
        asyncio.run(main())
    """)

    assert found == {"phase": "completed"}


def test_the_reaper_gives_every_exit_to_whoever_asked_and_the_rest_are_orphans():
    found, _ = run_alone("""
        async def main():
            reaper = Reaper(lambda pid, status: orphans.append(launch.exit_code(status)))
            reaper.install(asyncio.get_running_loop())
            futures = []
            for number in range(40):
                pid = launch.spawn(["sh", "-c", f"exit {number}"], dict(os.environb), frozenset())
                futures.append(reaper.watch(pid))
                launch.spawn(["sh", "-c", f"exit {100 + number}"], dict(os.environb), frozenset())
            codes = [launch.exit_code(await future) for future in futures]
            async with asyncio.timeout(5):
                while len(orphans) < 40:
                    await reaper.next_exit(0.1)
            told(codes=codes, orphans=sorted(orphans))
        asyncio.run(main())
    """)

    assert found["codes"] == list(range(40))
    assert found["orphans"] == list(range(100, 140))
