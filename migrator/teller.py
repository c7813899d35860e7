"""The current snapshot of a run, told whenever it changes."""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec.structs import replace

from migrator.report import MigrationPhase, Report


class Teller:
    """Keeps the current snapshot and tells it whenever it changes."""

    def __init__(self, tell: Callable[[Report], None]) -> None:
        """Hand each snapshot to `tell`."""
        self._tells = [tell]
        self._began_s = time.monotonic()
        self.report = Report(phase=MigrationPhase.PENDING)

    def __call__(self, phase: MigrationPhase, **changes: object) -> None:
        """Take over what changed; what belongs to a moment (current, reason) lapses unless given."""
        # `replace` checks the names.
        changes = {"current": None, "reason": None, "error": None, **changes}
        self.report = replace(self.report, phase=phase, duration_ms=self.elapsed_ms, **changes)
        for tell in self._tells:
            tell(self.report)

    def also(self, tell: Callable[[Report], None]) -> None:
        """Hand each snapshot to `tell` as well from now on."""
        self._tells.append(tell)

    @property
    def elapsed_ms(self) -> int:
        """Milliseconds since the migrator began."""
        return int((time.monotonic() - self._began_s) * 1000)
