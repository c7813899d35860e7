"""--check: look at this container, judge it, print what was found."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator

from msgspec.structs import asdict, replace

from entrypoint.check import configuration, container, look
from entrypoint.check.facts import Facts
from entrypoint.check.finding import Finding, Verdict
from migrator.errors import Redactor

CHECKS: dict[str, Callable[[Facts], Iterator[Verdict]]] = {
    "pid1": container.pid1,
    "pidfd": container.pidfd,
    "user": container.user,
    "home": container.home,
    "root": container.root,
    "proc": container.proc,
    "state": container.state,
    "limits": container.limits,
    "memory": container.memory,
    "oom": container.oom,
    "pids": container.tasks,
    "cpu": container.cpu,
    "cgroup": container.cgroup,
    "grace": configuration.grace,
    "settings": configuration.settings,
    "migrations": configuration.migrations,
    "files": configuration.files,
    "database": configuration.database,
    "terminal": container.terminal,
    "termination": container.termination_log,
}


def main(*, as_json: bool) -> int:
    """Look, judge, print; 1 if something failed."""
    try:
        seen = look.gather(os.environ)
        findings = _redacted(judge(seen), Redactor(seen.settings.secrets))
    except Exception as error:  # noqa: BLE001 - a bug of ours is a finding, not a traceback
        message = f"cannot look at this container: {type(error).__name__}"
        findings = [Finding(name="check", status="fail", message=message, remedy="report it, please")]
    try:
        # Paths may be any bytes.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # it is a TextIOWrapper
        print(document(findings) if as_json else lines(findings), flush=True)
    except (OSError, AttributeError):  # nobody reads it any more, or stdout is closed: the code still tells
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 1 if overall(findings) == "fail" else 0


def judge(seen: Facts) -> list[Finding]:
    """Everything that there is to say, in the order of `CHECKS`."""
    return [
        Finding(name=name, status=status, message=message, remedy=remedy)
        for name, check in CHECKS.items()
        for status, message, remedy in check(seen)
    ]


def overall(findings: list[Finding]) -> str:
    """The worst."""
    found = {finding.status for finding in findings}
    return next(status for status in ("fail", "warn", "ok") if status in found or status == "ok")


def document(findings: list[Finding]) -> str:
    """For machines."""
    return json.dumps({"status": overall(findings), "checks": [asdict(finding) for finding in findings]})


def lines(findings: list[Finding]) -> str:
    """For people. A line stays a line, whatever a path or a value holds."""
    width = max(len(finding.name) for finding in findings)
    made = [
        f"{finding.status:5} {finding.name:{width}}  {finding.message}"
        f"{f'; {finding.remedy}' if finding.remedy else ''}"
        for finding in findings
    ]
    return "\n".join("".join(sign if sign.isprintable() else "?" for sign in line) for line in made)


def _redacted(findings: list[Finding], redact: Redactor) -> list[Finding]:
    return [
        replace(one, message=redact(one.message), remedy=redact(one.remedy) if one.remedy else None)
        for one in findings
    ]
