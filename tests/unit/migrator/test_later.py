"""Modules that are loaded when something of them is used."""

import subprocess
import sys

import pytest

from migrator import later


def run(script):
    script = "import sys; from migrator import later; later.put_off(later.RARE); " + script
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_what_we_put_off_is_not_loaded_by_all_that_a_start_loads():
    script = "import migrator.cli, uvloop; print(*(one for one in later.RARE if '__file__' in vars(sys.modules[one])))"

    assert run(script) == []


@pytest.mark.parametrize("name", later.RARE)
def test_it_is_the_real_one_once_it_is_used(name):
    script = (
        f"import {name} as first; first.__file__; import {name}; print({name}.__file__ == first.__file__)"
    )

    assert run(script) == ["True"]


def test_names_can_be_imported_from_it_and_what_is_loaded_stays():
    script = "from configparser import ConfigParser; import json; later.put_off(['json']); print(json.dumps(1), ConfigParser().sections() == [])"

    assert run(script) == ["1", "True"]


def test_a_traceback_shows_its_source_as_ever(tmp_path):
    (tmp_path / "broken.py").write_text("def f():\n    return 1 / 0  # here\n")
    script = f"import traceback; sys.path.insert(0, {str(tmp_path)!r}); import broken\n"
    script += "try:\n    broken.f()\nexcept ZeroDivisionError:\n    traceback.print_exc(file=sys.stdout)"

    assert "here" in run(script)


def test_a_module_is_loaded_as_if_another_were_not_installed(tmp_path, monkeypatch):
    (tmp_path / "asks.py").write_text("try:\n    import asked\nexcept ImportError:\n    asked = None\n")
    (tmp_path / "asked.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))

    later.load_without("asks", "asked")

    assert sys.modules["asks"].asked is None
    import asked

    del sys.modules["asks"], sys.modules["asked"]
    assert asked is not None


def test_what_is_loaded_already_stays(monkeypatch):
    monkeypatch.setitem(sys.modules, "asked", sys)

    later.load_without("json", "asked")

    assert sys.modules["asked"] is sys
