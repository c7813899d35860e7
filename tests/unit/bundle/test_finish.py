import importlib.util
import os
import tarfile

import pytest

from bundle import finish


@pytest.fixture
def bundle(tmp_path):
    """A directory with a module of ours, another one, and a program."""
    directory = tmp_path / "bundle"
    for name in ("bin/entrypoint", "lib/python3/other.py", "site-packages/migrator/ours.py"):
        path = directory / name
        path.parent.mkdir(parents=True)
        path.write_text("answer = 42\n")
    return directory


def test_only_our_modules_keep_their_source(bundle):
    finish.compile_modules(bundle)

    files = sorted(str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file())
    assert files == [
        "bin/entrypoint",
        "lib/python3/other.pyc",
        importlib.util.cache_from_source("site-packages/migrator/ours.py"),
        "site-packages/migrator/ours.py",
    ]


def test_a_module_is_never_compared_with_its_source(bundle):
    finish.compile_modules(bundle)
    source = bundle / "site-packages/migrator/ours.py"
    source.write_text("raise AssertionError\n")

    spec = importlib.util.spec_from_file_location("ours", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    assert module.answer == 42


@pytest.mark.parametrize(
    ("epoch", "time_s"),
    [(None, 315532800), ("1700000000", 1700000000)],
    ids=["the default", "SOURCE_DATE_EPOCH"],
)
def test_the_archive_depends_on_nothing_but_the_content(bundle, tmp_path, monkeypatch, epoch, time_s):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    if epoch:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    archives = [tmp_path / "1.tar.gz", tmp_path / "2.tar.gz"]
    for number, archive in enumerate(archives):
        os.utime(bundle / "bin/entrypoint", (number, number))
        (bundle / "bin/entrypoint").chmod(0o700 + number)
        finish.level(bundle)
        finish.pack(bundle, archive)

    assert archives[0].read_bytes() == archives[1].read_bytes()
    with tarfile.open(archives[0]) as tar:
        members = {one.name: one for one in tar}
    assert {one.mtime for one in members.values()} == {time_s}
    assert {(one.uid, one.gid) for one in members.values()} == {(0, 0)}
    assert members["opt/entrypoint/bin/entrypoint"].mode == 0o755
    assert members["opt/entrypoint/site-packages/migrator/ours.py"].mode == 0o644
    assert list(members) == sorted(members)
