"""Reading the environment: types, secret files, and all problems at once."""

import pytest

from migrator import env
from migrator.env import Reader, Variable

COUNT = Variable(
    names=("COUNT", "OLD_COUNT"),
    parse=env.whole(minimum=1, maximum=9),
    default=3,
    shown_default="3",
    help="",
)
KEY = Variable[str | None](
    names=("KEY",), parse=env.optional_text, default=None, shown_default="", help="", secret=True
)
PICKY_KEY = Variable[int | None](
    names=("KEY",),
    parse=env.optional_whole(minimum=1, maximum=9),
    default=None,
    shown_default="",
    help="",
    secret=True,
)


def reader(files=None, **environ):
    def read_text(path):
        found = (files or {}).get(path)
        if found is None:
            raise FileNotFoundError(2, "No such file or directory", path)
        if isinstance(found, bytes):
            return found.decode()
        return found

    return Reader(environ, read_text)


@pytest.mark.parametrize(
    ("parse", "raw", "value"),
    [
        pytest.param(env.flag, "TRUE", True, id="a flag in capitals"),
        pytest.param(env.flag, " on ", True, id="a flag with white space"),
        pytest.param(env.flag, "1", True, id="a flag as a number"),
        pytest.param(env.flag, "no", False, id="a flag that says no"),
        pytest.param(env.flag, "0", False, id="a flag that is zero"),
        pytest.param(env.whole(minimum=0, maximum=10), "10", 10, id="a whole number at its bound"),
        pytest.param(env.optional_whole(minimum=0, maximum=10), "0", 0, id="zero is a number"),
        pytest.param(env.seconds(minimum=0), "0.25", 0.25, id="a fraction of a second"),
        pytest.param(env.choice("json", "console"), " JSON ", "json", id="a choice in any case"),
        pytest.param(env.listed(","), "a, b,,c ", ("a", "b", "c"), id="a list without its blanks"),
        pytest.param(env.text, "  a b ", "a b", id="a text without the white space around it"),
        pytest.param(env.optional_text, "   ", None, id="a blank text is none"),
    ],
)
def test_a_value_is_read_as_its_type(parse, raw, value):
    assert parse(raw) == value


@pytest.mark.parametrize(
    ("parse", "raw", "told"),
    [
        pytest.param(env.flag, "maybe", "true or false", id="a flag that is neither"),
        pytest.param(env.whole(minimum=1, maximum=9), "0", "from 1 to 9", id="too small"),
        pytest.param(env.whole(minimum=1, maximum=9), "10", "from 1 to 9", id="too large"),
        pytest.param(env.whole(minimum=1, maximum=9), "2.5", "whole number", id="a fraction"),
        pytest.param(env.whole(minimum=1, maximum=9), "", "whole number", id="nothing"),
        pytest.param(env.seconds(minimum=1), "nan", "number of seconds", id="not a number"),
        pytest.param(env.seconds(minimum=1), "inf", "number of seconds", id="infinity"),
        pytest.param(env.seconds(minimum=1), "0.5", "from 1 to 86400", id="too short"),
        pytest.param(env.seconds(minimum=1), "5s", "number of seconds", id="with a unit"),
        pytest.param(env.choice("a", "b"), "c", "one of a, b", id="not among the choices"),
        pytest.param(env.listed(","), " , ", "at least one", id="an empty list"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(parse, raw, told):
    with pytest.raises(ValueError, match=told):
        parse(raw)


def test_the_first_name_that_is_set_wins():
    assert reader(COUNT="4", OLD_COUNT="5").named(COUNT) == ("COUNT", 4)
    assert reader(OLD_COUNT="5").named(COUNT) == ("OLD_COUNT", 5)
    assert reader(COUNT="", OLD_COUNT="5").named(COUNT) == ("OLD_COUNT", 5)
    assert reader().named(COUNT) == (None, 3)


def test_a_wrong_value_is_collected_and_the_default_taken():
    read = reader(COUNT="many")

    assert read.get(COUNT) == 3
    assert read.problems == ["cannot use COUNT='many': must be a whole number from 1 to 9"]


def test_a_wrong_first_name_is_not_skipped_in_favour_of_a_second_one():
    read = reader(COUNT="many", OLD_COUNT="5")

    assert read.get(COUNT) == 3
    assert len(read.problems) == 1


def test_all_problems_are_collected():
    read = reader(COUNT="x", KEY="k", KEY_FILE="/k")
    read.get(COUNT)
    read.get(KEY)

    assert [problem.split(":")[0] for problem in read.problems] == [
        "cannot use COUNT='x'",
        "cannot use both KEY and KEY_FILE",
    ]


def test_a_secret_is_read_from_its_file_without_the_last_line_end():
    assert reader({"/k": "s3cret\r\n"}, KEY_FILE="/k").get(KEY) == "s3cret"


def test_only_secrets_are_read_from_files():
    assert reader({"/count": "5"}, COUNT_FILE="/count").get(COUNT) == 3


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(None, "No such file or directory", id="it is missing"),
        pytest.param(b"\xff\xfe", "isn't UTF-8", id="it isn't text"),
        pytest.param("\n", "empty", id="it is empty"),
    ],
)
def test_a_secret_file_that_is_of_no_use_is_a_problem_naming_the_file(content, told):
    read = reader({"/run/key": content}, KEY_FILE="/run/key")

    assert read.get(KEY) is None
    (problem,) = read.problems
    assert "KEY_FILE='/run/key'" in problem
    assert told in problem


@pytest.mark.parametrize("environ", [{"KEY": "hunter2"}, {"KEY_FILE": "/k"}])
def test_a_wrong_secret_is_never_shown(environ):
    read = reader({"/k": "hunter2"}, **environ)
    read.get(PICKY_KEY)

    assert read.problems == ["cannot use KEY=(hidden): must be a whole number from 1 to 9"]


def test_white_space_around_a_value_does_not_belong_to_it_and_alone_is_no_value():
    assert reader(COUNT=" 4\n").named(COUNT) == ("COUNT", 4)
    assert reader(COUNT=" \n", OLD_COUNT="5").named(COUNT) == ("OLD_COUNT", 5)
    assert reader(KEY=" s3cret \r\n").every(KEY) == ("s3cret",)
    assert reader({"/k": " s3cret \n\n"}, KEY_FILE=" /k\n").get(KEY) == "s3cret"
    read = reader({"/k": "s3cret"}, KEY=" \n", KEY_FILE="/k")
    assert (read.get(KEY), read.problems) == ("s3cret", [])
    read = reader({"/k": " \n"}, KEY_FILE="/k")
    assert (read.get(KEY), len(read.problems)) == (None, 1)
