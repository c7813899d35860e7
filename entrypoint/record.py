"""What the overseer tells PID 1: one line is one whole snapshot of the migrations. Lean on both sides."""

from __future__ import annotations

# The descriptor that the overseer finds its end of the pipe at, and the migrator its own.
REPORT_FD = 3
MAX_BYTES = 64 * 1024

_FIELDS = 7


class Record:
    """How far the migrations are, as far as PID 1 must understand it.

    Attributes:
        settled: Nothing about them will change any more.
        failed: The last attempt failed.
        done: They are completed or skipped: the app finds the schema it was built for.
        code: What the container exits with where no app runs.
        groups: Leaders of process groups beside the overseer's, which must end with us.
        summary: A few words for people, without secrets.
        document: The value of `migrations` in the health document, as JSON.
    """

    __slots__ = ("code", "document", "done", "failed", "groups", "settled", "summary")

    def __init__(
        self,
        *,
        settled: bool,
        failed: bool,
        done: bool,
        code: int,
        groups: frozenset[int],
        summary: str,
        document: str,
    ) -> None:
        """Remember what the attributes say."""
        self.settled = settled
        self.failed = failed
        self.done = done
        self.code = code
        self.groups = groups
        self.summary = summary
        self.document = document


def summary(status: str, phase: str, said: str | None) -> str:
    """A few words for people: the phase where it tells more than the status, and what was said."""
    details = ", ".join(one for one in (phase if phase != status else "", said) if one)
    return f"migrations {status}{f' ({details})' if details else ''}"


def encode(record: Record) -> bytes:
    """One line."""
    fields = (
        "1" if record.settled else "0",
        "1" if record.failed else "0",
        "1" if record.done else "0",
        str(record.code),
        ",".join(str(leader) for leader in sorted(record.groups)),
        " ".join(record.summary.split()),
        record.document,  # JSON on one line holds neither tab nor line end
    )
    return "\t".join(fields).encode(errors="backslashreplace") + b"\n"


def decode(line: bytes) -> Record:
    """The record in a line.

    Raises:
        ValueError: The line is none.
    """
    fields = line.decode().split("\t")
    if len(fields) != _FIELDS or not fields[-1].startswith("{") or not fields[-1].endswith("}"):
        raise ValueError("it isn't a record of the overseer")
    settled, failed, done, code, groups, summary, document = fields
    return Record(
        settled=settled == "1",
        failed=failed == "1",
        done=done == "1",
        code=int(code),
        groups=frozenset(int(leader) for leader in groups.split(",") if leader),
        summary=summary,
        document=document,
    )
