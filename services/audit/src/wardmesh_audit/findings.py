"""What `verify` found: kinds with their position, the verdict and its exit code (audit.md section 14)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

VERIFIED, TAMPERED, INCOMPLETE, CANNOT_VERIFY, USAGE = 0, 1, 2, 3, 64
_WORDS = {VERIFIED: "verified", TAMPERED: "tampered", INCOMPLETE: "incomplete", CANNOT_VERIFY: "cannot verify"}

_WORST_FIRST = (TAMPERED, CANNOT_VERIFY, INCOMPLETE, VERIFIED)

KEPT = 50


def worst(codes: Iterable[int]) -> int:
    """The exit code that says most about several logs."""
    found = set(codes)
    return next(code for code in _WORST_FIRST if code in found)


class Finding(Struct, frozen=True, kw_only=True):
    """One fault. `incomplete` faults mean something is missing that may be missing for a good reason."""

    kind: str
    index: int
    event_id: str = ""
    detail: str = ""
    incomplete: bool = False


class Report(Struct, kw_only=True):
    """The result of one run."""

    log: str
    size: int = 0
    root: str = ""
    rows: int = 0
    checkpoints: int = 0
    uncovered: int = 0  # events after the newest checkpoint
    last_good_checkpoint: int | None = None
    findings: list[Finding] = []
    total_findings: int = 0
    tampered: bool = False
    obstacle: str = ""  # why nothing can be verified

    def add(self, finding: Finding) -> None:
        self.total_findings += 1
        self.tampered = self.tampered or not finding.incomplete
        if len(self.findings) < KEPT:
            self.findings.append(finding)

    @property
    def exit_code(self) -> int:
        if self.tampered:
            return TAMPERED
        if self.obstacle:
            return CANNOT_VERIFY
        return INCOMPLETE if self.findings else VERIFIED

    def as_json(self) -> str:
        values: dict[str, Any] = {"verdict": _WORDS[self.exit_code], "exit": self.exit_code}
        values |= msgspec.to_builtins(self)
        return msgspec.json.encode(values).decode()

    def as_text(self) -> str:
        lines = [f"log {self.log}: {_WORDS[self.exit_code]}"]
        if self.obstacle:
            lines.append(f"  {self.obstacle}")
        for finding in self.findings:
            event = f" (event {finding.event_id})" if finding.event_id else ""
            lines.append(f"  {finding.kind} at index {finding.index}{event}: {finding.detail}")
        if self.total_findings > len(self.findings):
            lines.append(f"  and {self.total_findings - len(self.findings)} more")
        good = "none" if self.last_good_checkpoint is None else str(self.last_good_checkpoint)
        lines.append(
            f"  {self.rows} events checked, tree size {self.size}, {self.checkpoints} checkpoints,"
            f" last good checkpoint {good}, {self.uncovered} events not yet covered"
        )
        return "\n".join(lines)
