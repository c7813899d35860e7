"""Files: which count, in which order, and what identifies their content."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from migrator import migration as files
from migrator.errors import ConfigError, PlanError
from migrator.migration import Checksum, checksum


@pytest.fixture
def write(tmp_path):
    """Write a file below the test's directory; the directory's path."""

    def write(name, content="select 1;"):
        path = tmp_path / "migrations" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content)
        return tmp_path / "migrations"

    return write


def load(*directories, environment=None):
    return files.load(directories, environment, chosen=True)


def names(found):
    return [migration.filename for migration in found.migrations]


@pytest.mark.parametrize(
    ("name", "version", "title"),
    [
        ("20250101120000_create_users.sql", "20250101120000", "create_users"),
        ("20250101_create.sql", "20250101", "create"),
        ("202501011200_x.sql", "202501011200", "x"),
        ("20259999999999_no_date.sql", "20259999999999", "no_date"),
        ("1_a.sql", "1", "a"),
        ("0001_a_b_c.sql", "0001", "a_b_c"),
        ("1_With Spaces-and.dots.sql", "1", "With Spaces-and.dots"),
        ("1_größe_🐘.sql", "1", "größe_🐘"),
        ("1_3f2b8c1e-aaaa-4bbb-8ccc-000000000001.sql", "1", "3f2b8c1e-aaaa-4bbb-8ccc-000000000001"),
        ('1_it\'s a "name"; drop.sql', "1", 'it\'s a "name"; drop'),
        ("1_twice.sql.sql", "1", "twice.sql"),
        ("1_.sql", "1", ""),
    ],
)
def test_a_name_with_digits_and_an_underscore_is_a_migration(write, name, version, title):
    (found,) = load(write(name)).migrations

    assert (found.version, found.name, found.filename) == (version, title, name)


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "init.sql",
        "20250101-dash.sql",
        "v1_a.sql",
        "1_a.SQL",
        "1_a.sql.bak",
        "\u0661_a.sql",
        ".gitkeep",
    ],
)
def test_another_name_is_skipped_aloud(write, name):
    found = load(write(name))

    assert found.migrations == ()
    assert found.warnings == (f"skipped, since the name isn't <version>_<description>.sql: {name}",)


def test_many_skipped_names_are_counted(write):
    for number in range(5):
        directory = write(f"note{number}.md")

    assert load(directory).warnings[0].endswith("note0.md, note1.md, note2.md and 2 more")


def test_the_way_back_is_left_alone_without_a_word(write):
    write("1_a.down.sql")
    found = load(write("1_a.sql"))

    assert (names(found), found.warnings) == (["1_a.sql"], ())


def test_sub_directories_are_not_searched(write):
    write("archive/1_old.sql")
    write("2_dir.sql/inner.txt")

    assert names(load(write("3_new.sql"))) == ["3_new.sql"]


def test_the_environments_own_directory_is_merged_in(write):
    write("1_a.sql")
    write("3_c.sql")
    write("staging/2_b.sql")
    directory = write("production/2_other.sql")

    assert names(load(directory, environment="staging")) == ["1_a.sql", "2_b.sql", "3_c.sql"]
    assert names(load(directory)) == ["1_a.sql", "3_c.sql"]
    assert names(load(directory, environment="test")) == ["1_a.sql", "3_c.sql"]


def test_several_directories_are_one_sequence(write):
    first, second = write("a/1_a.sql") / "a", write("b/2_b.sql") / "b"
    write("a/3_c.sql")

    assert names(load(second, first)) == ["1_a.sql", "2_b.sql", "3_c.sql"]


def test_versions_sort_as_text_and_mixed_lengths_are_told(write):
    for name in ("2_b.sql", "10_c.sql", "1_a.sql"):
        directory = write(name)
    found = load(directory)

    assert names(found) == ["1_a.sql", "10_c.sql", "2_b.sql"]
    (warning,) = found.warnings
    assert "versions of different lengths" in warning
    assert "10_c.sql" in warning


def test_mixed_lengths_that_sort_alike_are_no_news(write):
    for name in ("20240101_a.sql", "20250101120000_b.sql"):
        directory = write(name)

    assert load(directory).warnings == ()


def test_two_files_of_one_version_are_refused_by_name(write):
    write("1_a.sql")
    directory = write("production/1_b.sql")

    with pytest.raises(PlanError, match=r"1_a\.sql and .*1_b\.sql apart: both have version 1; rename"):
        load(directory, environment="production")


def test_a_directory_that_somebody_named_must_exist(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot find the migrations directory .*/nope'"):
        load(tmp_path / "nope")


def test_a_directory_that_can_not_even_be_looked_at_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot .* the migrations directory"):
        load(tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param("select 1;".encode("utf-16"), "it is UTF-16; save it as UTF-8", id="UTF-16"),
        pytest.param(b"select 1;\nselect '\xe4';\n", "line 2 isn't UTF-8", id="Latin-1"),
        pytest.param(b"select 1;\n\nselect '\0';", "line 3 holds a NUL character", id="NUL"),
    ],
)
def test_a_file_that_is_no_text_is_refused_by_name_and_line(write, content, told):
    directory = write("1_a.sql", content)

    with pytest.raises(PlanError, match=r"cannot read 1_a\.sql") as caught:
        load(directory)
    assert told in str(caught.value)


def test_a_file_that_can_not_be_read_is_told(write):
    directory = write("1_a.sql")
    (directory / "2_b.sql").symlink_to("/nowhere")

    with pytest.raises(PlanError, match=r"cannot read 2_b\.sql: it is a link to '/nowhere', where nothing"):
        load(directory)


def test_a_name_that_is_no_text_is_refused(write):
    directory = write("1_a.sql")
    with open(os.path.join(os.fsencode(directory), b"2_\xff.sql"), "w"):
        pass

    with pytest.raises(PlanError, match="its name isn't UTF-8"):
        load(directory)


def test_a_byte_order_mark_is_not_part_of_the_text(write):
    path = write("1_a.sql", b"\xef\xbb\xbfselect 1;\r\n") / "1_a.sql"

    assert files.read_text(path) == "select 1;\r\n"


@pytest.mark.parametrize(
    "other",
    [
        pytest.param("select 1;\r\nselect 'ä';\r\n", id="line ends of Windows"),
        pytest.param("select 1;\rselect 'ä';\r", id="line ends of old"),
        pytest.param("\ufeffselect 1;\nselect 'ä';\n", id="a byte order mark"),
        pytest.param("select 1;  \t\nselect 'ä';  \n\n\n", id="trailing white space"),
        pytest.param("select 1;\nselect 'ä';", id="no line end at the end"),
    ],
)
def test_what_does_not_matter_does_not_change_the_checksum(other):
    assert checksum(other) == checksum("select 1;\nselect 'ä';\n")


@pytest.mark.parametrize(
    "other", ["select 2;\n", " select 1;\n", "select  1;\n", "SELECT 1;\n", "\nselect 1;\n", ""]
)
def test_what_may_matter_changes_the_checksum(other):
    assert checksum(other) != checksum("select 1;\n")


def test_where_there_may_be_data_everything_counts():
    text = "copy a from stdin;\n1\t\n\\.\n"

    assert checksum(text) != checksum(text.replace("\t\n", "\n"))


@pytest.mark.parametrize("where", [*range(250, 258), 500_000])
def test_a_checksum_is_the_same_in_whatever_pieces_the_text_comes(write, where):
    text = "x" * where + " STDIN  \r\n\r\n" + "\t \n" * 500 + "größe 🐘\n \n"
    directory = write("1_a.sql", text.encode())
    summed = Checksum()
    for begin in range(0, len(text), 97):
        summed.update(text[begin : begin + 97])

    assert str(summed) == checksum(text) == load(directory).migrations[0].checksum


@pytest.mark.parametrize("space", ["  \r\n", "\r", "\n\n ", ""])
def test_white_space_counts_in_the_middle_of_a_file_only(write, space):
    text = ("a" * 99_999 + space) * 7

    assert load(write("1_a.sql", text.encode())).migrations[0].checksum == checksum(text)


def test_a_checksum_names_its_algorithm():
    assert checksum("").startswith("sha256:")
    assert len(checksum("")) == len("sha256:") + 64


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_told_as_such_also_without_a_byte_order_mark(write, encoding):
    with pytest.raises(PlanError, match=r"cannot read 1_a.sql: it is UTF-16; save it as UTF-8"):
        load(write("1_a.sql", "select 'größe';\n".encode(encoding)))


def test_utf32_is_not_taken_for_utf16(write):
    with pytest.raises(PlanError, match=r"cannot read 1_a.sql: it is UTF-32; save it as UTF-8"):
        load(write("1_a.sql", "select 1;".encode("utf-32")))


@pytest.mark.parametrize("target", ["/nowhere/1_a.sql", "1_a.sql", "/dev/null/x"])
def test_a_link_that_leads_nowhere_is_told_with_where_it_should(tmp_path, target):
    (tmp_path / "1_a.sql").symlink_to(target)

    with pytest.raises(PlanError) as caught:
        load(tmp_path)

    assert str(caught.value) == (
        f"cannot read 1_a.sql: it is a link to {target!r}, where nothing is; correct the link or remove it"
    )


def test_what_has_the_name_of_a_migration_and_is_no_file_is_skipped_aloud(write):
    directory = write("3_c.sql")
    (directory / "1_a.sql").mkdir()
    (directory / "2_b.sql").symlink_to("/dev/zero")
    (directory / "notes").mkdir()

    found = load(directory)

    assert names(found) == ["3_c.sql"]
    (warning,) = found.warnings
    assert warning == (
        "skipped, since it isn't a file: 1_a.sql (a directory), 2_b.sql (a pipe or device); "
        "put the SQL into a file of that name"
    )


def test_a_file_that_we_may_not_read_is_told_with_for_whom_it_must_be_readable():
    directory = Path(tempfile.mkdtemp(prefix="entrypoint-test-"))  # tmp_path is closed to anybody but root
    directory.chmod(0o755)
    (directory / "1_a.sql").touch(mode=0o200)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(PlanError) as caught:
            load(directory)
        uid = os.geteuid()
    finally:
        os.seteuid(before)
        shutil.rmtree(directory)

    assert str(caught.value) == f"cannot read 1_a.sql: Permission denied; make it readable for uid {uid}"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"select 1;", id="plain"),
        pytest.param(b"\n\n select 1;  \n\t\n-- two \x1c\n\x0b\n", id="white space"),
        pytest.param(b"select 1;\r\nselect 2;\r", id="line ends of others"),
        pytest.param("select 'é\xa0\u2028';  \n".encode(), id="beyond ASCII"),
        pytest.param(b"\xef\xbb\xbfselect 1;", id="a byte order mark"),
        pytest.param(b"copy a from STDIN;\n1 \n\\.\n", id="data"),
        pytest.param(b"x" * (16 * 1024), id="as large as a small one may be"),
        pytest.param(b"x \n" * 100_000, id="larger"),
    ],
)
def test_a_files_checksum_is_that_of_its_text(tmp_path, content):
    (tmp_path / "1_a.sql").write_bytes(content)
    (found,) = load(tmp_path).migrations
    slowly = files.Checksum()
    for begin in range(0, len(content.decode()), 1000):
        slowly.update(content.decode().removeprefix("\ufeff")[begin : begin + 1000])

    assert found.checksum == files.checksum(content.decode()) == str(slowly)
