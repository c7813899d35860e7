"""Commands that a person gives in the app's place: a shell to type into, or one of ours. Pure."""

from __future__ import annotations

import os.path
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_SHELLS = frozenset(("ash", "bash", "csh", "dash", "fish", "ksh", "mksh", "sh", "tcsh", "zsh"))
# Of all of these: what is followed by a word of its own.
_WITH_WORD = frozenset(("-o", "+o", "-O", "+O", "--rcfile", "--init-file"))
_OUR_OPTIONS = frozenset(("--healthcheck", "--status", "--check", "--version", "--help", "-h"))


def why(argv: Sequence[str]) -> str | None:
    """Why nothing is to be migrated beside this command; None if it is an app.

    The shell form of CMD arrives as `/bin/sh -c "..."`, and many an app is started by a script: those
    are apps. A shell with neither is for a person, or for a few lines piped into it.
    """
    words = _words(argv)
    name = _name(words)
    if name in _SHELLS and _reads_input(words[1:]):
        return (
            f"{name} without a command or a script is a shell for a person, not an app; in it, `migrator up` "
            f"migrates; to have it done beside the shell, run: sh -c {name}"
        )
    return f"{name} was run by hand, and nothing migrates beside it" if is_ours(argv) else None


def is_ours(argv: Sequence[str]) -> bool:
    """Whether it is a command of ours, by its bare name or as the one that is installed beside us.

    A `migrator` in another place is somebody's own.
    """
    words = _words(argv)
    return words[:1] == ["migrator"] or (words[:1] == ["entrypoint"] and bool(_OUR_OPTIONS & set(words[1:2])))


def _words(argv: Sequence[str]) -> list[str]:
    """The command without those that only lead to it."""
    words = list(argv)
    if words and os.path.dirname(words[0]) == os.path.dirname(sys.executable):
        words[0] = _name(words)
    if _name(words) in ("busybox", "toybox"):
        return words[1:]
    if _name(words).startswith("python") and words[1:2] == ["-m"]:
        return words[2:]
    return words


def _reads_input(words: Sequence[str]) -> bool:
    """Whether a shell with these arguments takes its commands from standard input."""
    expects_word = False
    for word in words:
        if expects_word:
            expects_word = False
        elif word in ("-", "--"):
            return word == words[-1]
        elif word.startswith("--"):
            if word.split("=")[0] == "--command":
                return False
            expects_word = word in _WITH_WORD
        elif word[:1] in ("-", "+"):
            if "c" in word:
                return False
            if "s" in word:
                return True  # what follows are its parameters
            expects_word = word[0] + word[-1] in _WITH_WORD
        else:
            return False  # a script
    return True


def _name(words: Sequence[str]) -> str:
    return os.path.basename(words[0]) if words else ""
