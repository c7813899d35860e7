"""Findings for eyes, for machines, and for GitHub's code scanning. Pure."""

from __future__ import annotations

import json
import os.path
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from migrator.hazards.finding import Finding, Severity
from migrator.hazards.table import RULES

_SARIF_LEVELS = {Severity.BLOCKING: "error", Severity.BREAKING: "warning", Severity.NOTICE: "note"}
_WIDTH = 100
_BOLD, _RED, _YELLOW, _PLAIN = "\033[1m", "\033[31m", "\033[33m", "\033[0m"


def for_eyes(found: Sequence[Finding], paths: Mapping[str, Path], *, colors: bool) -> list[str]:
    """Lines for a terminal."""
    lines = []
    for one in found:
        color = {Severity.BLOCKING: _RED, Severity.BREAKING: _YELLOW, Severity.NOTICE: ""}[one.severity]
        place = f"{_shown(paths[one.filename])}:{one.line}:{one.column}"
        head = f"{place}: {one.severity}: {one.rule}"
        lines.append(f"{_BOLD}{place}: {color}{one.severity}: {one.rule}{_PLAIN}" if colors else head)
        lines.append(f"    {one.statement}")
        lines += textwrap.wrap(_sentence(one.why), _WIDTH, initial_indent="  ", subsequent_indent="  ")
        lines.append("  Instead:")
        lines += [f"    {line}" for line in one.safe.splitlines()]
        lines += [f"  See {RULES[one.rule].page}", ""]
    return lines


def as_json(found: Sequence[Finding], paths: Mapping[str, Path], more: Mapping[str, Any]) -> str:
    """One document."""
    document = {
        **more,
        "findings": [
            {
                "rule": one.rule,
                "severity": str(one.severity),
                "file": _shown(paths[one.filename]),
                "line": one.line,
                "column": one.column,
                "statement": one.statement,
                "why": one.why,
                "safe": one.safe,
                "page": RULES[one.rule].page,
                "fixable": one.fix is not None,
                "certain": one.certain,
            }
            for one in found
        ],
    }
    return json.dumps(document, indent=2)


def as_sarif(found: Sequence[Finding], paths: Mapping[str, Path], version: str) -> str:
    """SARIF 2.1.0, as GitHub's code scanning takes it."""
    rules = sorted({one.rule for one in found})
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "migrator lint",
                        "semanticVersion": version,
                        "rules": [_sarif_rule(name) for name in rules],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": [_sarif_result(one, paths[one.filename], rules) for one in found],
            }
        ],
    }
    return json.dumps(log, indent=2)


def _sarif_rule(name: str) -> dict[str, Any]:
    rule = RULES[name]
    return {
        "id": name,
        "name": "".join(word.capitalize() for word in name.split("-")),
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.why},
        "help": {
            "text": f"{rule.safe}\n\n{rule.safe_example}",
            "markdown": f"{rule.safe}\n\n```sql\n{rule.safe_example}\n```\n\nSee `{rule.page}`.",
        },
        "defaultConfiguration": {"level": _SARIF_LEVELS[rule.severity]},
        "properties": {"tags": ["sql", "migration", str(rule.severity)], "precision": "high"},
    }


def _sarif_result(one: Finding, path: Path, rules: Sequence[str]) -> dict[str, Any]:
    return {
        "ruleId": one.rule,
        "ruleIndex": rules.index(one.rule),
        "level": _SARIF_LEVELS[one.severity],
        "message": {"text": f"{_sentence(one.why)}\n\nInstead:\n{one.safe}"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": Path(_shown(path)).as_posix().replace(" ", "%20")},
                    "region": {"startLine": one.line, "startColumn": one.column},
                }
            }
        ],
        # The statement, not its line: what is written above it makes no new finding.
        "partialFingerprints": {"statement/v1": f"{one.filename}:{one.rule}:{one.statement}"},
    }


def _shown(path: Path) -> str:
    """Relative to where we are, if it is below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
