"""What works before anything is loaded."""

import os
import signal
import subprocess
import sys

import pytest

from entrypoint import launch
from tests.support.processes import REPO


def test_the_hot_path_loads_nothing_heavy():
    # What -S -I -c "import os" loads is the interpreter's own; everything beyond it costs the app time.
    def loaded(code):
        script = f"import sys; sys.path.insert(0, {str(REPO)!r}); {code}; print(*sorted(sys.modules))"
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True
        )
        return set(done.stdout.split())

    extra = loaded("import entrypoint.launch") - loaded("import os")

    assert extra == {"entrypoint", "entrypoint.launch"}
    assert not loaded("import entrypoint.launch") & {
        "asyncio",
        "enum",
        "re",
        "signal",
        "subprocess",
        "typing",
    }


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["--", "app"], ["app"]),
        (["app"], ["app"]),
        (["app", "--", "-x"], ["app", "--", "-x"]),
        (["--", "-x"], []),
        (["--", "--", "x"], ["x"]),
        (["app", "--healthcheck"], ["app", "--healthcheck"]),
        (["--", "--healthcheck"], []),
        (["--", "--", "--healthcheck"], []),
        (["--", ""], [""]),
        ([""], [""]),
        (["--healthcheck"], []),
        (["-h"], []),
        (["--"], []),
        ([], []),
    ],
)
def test_what_is_the_app_and_what_are_our_own_options(arguments, command):
    assert launch.app_command(arguments) == command


def environ(**ours):
    return launch.app_environ({name.encode(): value.encode() for name, value in ours.items()})


def test_the_environment_is_passed_on_with_where_our_status_is():
    assert environ(A="1", EMPTY="") == {
        b"A": b"1",
        b"EMPTY": b"",
        b"ENTRYPOINT_STATUS_FILE": b"/tmp/entrypoint/status.json",
        b"ENTRYPOINT_SOCKET": b"/tmp/entrypoint/entrypoint.sock",
    }


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("/run/x", "/run/x/status.json"),
        (" /run/x ", "/run/x/status.json"),
        ("/run/x/", "/run/x/status.json"),
        ("", "/tmp/entrypoint/status.json"),
        ("rel", f"{os.getcwd()}/rel/status.json"),
    ],
)
def test_the_state_directory_is_told_as_we_will_read_it(given, told):
    assert environ(ENTRYPOINT_STATE_DIR=given)[b"ENTRYPOINT_STATUS_FILE"] == told.encode()


def test_scrubbed_names_are_gone_and_others_stay():
    found = environ(ENTRYPOINT_SCRUB_ENV="A, B,,C_NOT_THERE", A="1", B="2", AB="3")

    assert found.keys() & {b"A", b"B", b"AB"} == {b"AB"}


@pytest.mark.parametrize("name", launch.DATABASE_NAMES)
def test_embedded_becomes_an_url_in_whichever_variable_it_stands(name):
    found = environ(**{name: " embedded\n", "ENTRYPOINT_STATE_DIR": "/run/x"})

    assert found[name.encode()] == b"postgresql://postgres@/postgres?host=/run/x/postgres"


def test_a_real_url_is_left_alone():
    assert environ(DATABASE_URL="postgresql://a/b")[b"DATABASE_URL"] == b"postgresql://a/b"


@pytest.mark.parametrize("name", [b"", b"=x", b"a=b"])
def test_names_that_posix_spawn_would_refuse_all_for_are_left_out(name):
    pid = launch.spawn(["/bin/sh", "-c", "exit $A"], {name: b"1", b"A": b"3"}, frozenset())

    assert launch.exit_code(os.waitpid(pid, 0)[1]) == 3


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_the_code_of_an_exit_is_itself(code):
    assert launch.exit_code(code << 8) == code


@pytest.mark.parametrize("number", [1, 9, 15, 34, 64])
def test_the_code_of_a_death_by_signal_is_128_plus_its_number(number):
    assert launch.exit_code(number) == 128 + number


def test_every_signal_is_forwarded_but_faults_what_cant_be_caught_and_what_our_own_writing_raises():
    left_out = {"SEGV", "BUS", "FPE", "ILL", "ABRT", "TRAP", "SYS", "KILL", "STOP", "PIPE", "XFSZ"}

    expected = signal.valid_signals() - {signal.Signals[f"SIG{name}"] for name in left_out}
    assert set(launch.CATCHABLE) == expected


def test_what_went_wrong_is_told_with_its_place_on_one_line():
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError as error:
        said = launch.where(error)

    assert said.startswith("RuntimeError('two\\nlines') at ")
    assert said.rpartition(":")[0].endswith("test_launch.py")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("raw", "mode"),
    [("", ""), ("gate", "gate"), (" Gate\n", "gate"), ("ONLY", "only"), ("nonsense", "nonsense")],
)
def test_the_mode_is_read_as_the_settings_read_it(monkeypatch, raw, mode):
    monkeypatch.setenv("MIGRATION_MODE", raw)

    assert launch.mode() == mode
