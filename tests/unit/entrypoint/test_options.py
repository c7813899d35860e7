"""PID 1's own settings, and what they make of an exit code."""

import pytest

from entrypoint.options import Options
from migrator import env, variables


def read(**environ):
    return Options.read(environ)


def test_without_variables_the_defaults_are_those_of_the_reference():
    options = read()

    assert options.stop_grace_s == variables.STOP_GRACE.default == 10
    assert options.state_dir == variables.STATE_DIR.default
    assert options.names == {"service": "app", "environment": None, "version": None}
    assert (options.stop_signal, options.whole_group, options.rewrite, options.remap) == (None, False, {}, {})


def test_a_wrong_value_takes_its_default():
    options = read(ENTRYPOINT_STOP_GRACE="soon", ENTRYPOINT_STOP_SIGNAL="NOPE", ENTRYPOINT_REMAP_EXIT="x")

    assert (options.stop_grace_s, options.stop_signal, options.remap) == (10, None, {})


def test_whatever_pid_1_reads_somebody_complains_about():
    # Options takes the default for a wrong value and says nothing: the overseer must.
    class Recording(env.Reader):
        def named(self, variable):
            seen.append(variable)
            return super().named(variable)

    seen = []
    Options(Recording({}, str))

    told = (*variables.OF_PID_1, *variables.OF_MIGRATIONS)
    assert [variable.names for variable in seen if variable not in told] == []


@pytest.mark.parametrize(
    ("name", "raw", "field", "value"),
    [
        ("MIGRATION_MODE", " Gate ", "mode", "gate"),
        ("ENTRYPOINT_STATE_DIR", "/run/x/../y", "state_dir", "/run/y"),
        ("ENTRYPOINT_HTTP_PORT", "8081", "http_port", 8081),
        ("ENTRYPOINT_STOP_GRACE", "0", "stop_grace_s", 0),
        ("ENTRYPOINT_STOP_DELAY", "2.5", "stop_delay_s", 2.5),
        ("ENTRYPOINT_STOP_SIGNAL", "QUIT", "stop_signal", 3),
        ("ENTRYPOINT_SIGNAL_GROUP", "Group", "whole_group", True),
        ("ENTRYPOINT_REWRITE_SIGNALS", "HUP:USR1,WINCH:0", "rewrite", {1: 10, 28: 0}),
        ("ENTRYPOINT_PDEATHSIG", "KILL", "death_signal", 9),
        ("ENTRYPOINT_TERMINATION_LOG", "/x", "termination_log", "/x"),
        ("SERVICE_NAME", " shop ", "names", {"service": "shop", "environment": None, "version": None}),
        ("APP_ENV", "staging", "names", {"service": "app", "environment": "staging", "version": None}),
        ("APP_VERSION", "1.2", "names", {"service": "app", "environment": None, "version": "1.2"}),
        ("LOG_LEVEL", "WARN", "log_level", "warn"),
    ],
)
def test_each_variable_sets_its_field(name, raw, field, value):
    assert getattr(read(**{name: raw}), field) == value


@pytest.mark.parametrize(
    ("rule", "code", "forwarded", "exits_with"),
    [
        ("", 143, {15}, 143),
        ("143=0", 143, set(), 0),
        ("143=0", 1, set(), 1),
        ("3=7", 3, set(), 7),
        ("forwarded=0", 143, {15}, 0),
        ("forwarded=0", 143, {2}, 143),
        ("forwarded=0", 143, set(), 143),
        ("forwarded=0", 137, {15}, 137),
        ("forwarded=0,143=9", 143, {15}, 9),
        ("forwarded=0", 0, {15}, 0),
    ],
)
def test_exit_codes_are_mapped_by_pairs_first_and_then_by_the_rule(rule, code, forwarded, exits_with):
    options = read(ENTRYPOINT_REMAP_EXIT=rule)

    assert options.exit_code(code, frozenset(forwarded)) == exits_with


def test_a_deleted_working_directory_is_no_reason_to_fail(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert read(ENTRYPOINT_STATE_DIR="relative").state_dir == "relative"
