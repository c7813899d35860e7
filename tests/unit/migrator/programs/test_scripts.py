"""Shell scripts: found, started, and what they say of themselves."""

import pytest

from migrator.programs import scripts


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["db/migrations/migrate.sh", "db/migrate.sh", "migrate.sh"], "db/migrations/migrate.sh"),
        (["db/migrate.sh", "migrate.sh"], "db/migrate.sh"),
        (["scripts/run-migrations.sh"], "scripts/run-migrations.sh"),
        (["scripts/migrate.sh", "scripts/run-migrations.sh"], "scripts/migrate.sh"),
        (["db/migrations/0001_a.sh"], None),
    ],
)
def test_the_script_that_migrates(tmp_path, files, found):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert scripts.find([tmp_path / "db/migrations"], tmp_path) == (found and tmp_path / found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#!/bin/sh\n", ["/bin/sh"]),
        ("#!/usr/bin/env bash\r\n", ["/usr/bin/env", "bash"]),
        ("#! /bin/sh -e\n", ["/bin/sh", "-e"]),
        ("#!/usr/bin/env -S a b\n", ["/usr/bin/env", "-S a b"]),
        ("echo\n", ["sh"]),
        ("", ["sh"]),
    ],
)
def test_the_first_line_says_who_runs_it(tmp_path, text, words):
    path = tmp_path / "x.sh"
    path.write_bytes(text.encode())

    assert scripts.command(path) == [*words, str(path)]


def test_a_relative_script_is_not_looked_for_in_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.sh").touch()

    assert scripts.command(scripts.Path("x.sh")) == ["sh", "./x.sh"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#!/bin/sh\n# migrator: rerunnable\necho\n", True),
        ("#!/bin/sh\n\n  #migrator:rerunnable\n", True),
        ("echo\n# migrator: rerunnable\n", False),
        ("# not migrator: rerunnable\n", False),
        ("", False),
    ],
)
def test_who_may_be_run_again(tmp_path, text, said):
    path = tmp_path / "x.sh"
    path.write_text(text)

    assert scripts.is_rerunnable(path) is said
