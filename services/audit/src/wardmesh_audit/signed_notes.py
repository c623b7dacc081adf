"""The checkpoints of a log as the database stores them, each opened only with its signature."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import asyncpg

from wardmesh_audit.ledger import Connection
from wardmesh_audit.note import BadNote, BadSignature, Checkpoint, UnknownKey, Verifier, open_note, parse_checkpoint

ALL = 2**63 - 1  # above every size and index
_PREFETCH = 1000
_NOTES = "select size, root, note from checkpoint where log_id = $1 and size > $2 and size <= $3 order by size"


class SignedNotes:
    """Reads inside the transaction of a verification."""

    def __init__(self, conn: Connection, verifiers: Sequence[Verifier], log_id: int) -> None:
        self._conn = conn
        self._verifiers = list(verifiers)
        self._log_id = log_id

    async def any(self) -> bool:
        return bool(await self._conn.fetchval("select exists (select from checkpoint where log_id = $1)", self._log_id))

    async def between(self, above: int, up_to: int) -> AsyncGenerator[asyncpg.Record]:
        async for row in self._conn.cursor(_NOTES, self._log_id, above, up_to, prefetch=_PREFETCH):
            yield row

    def opened(self, row: asyncpg.Record) -> Checkpoint:
        """Raises UnknownKey, BadSignature, BadNote with what is wrong as text."""
        try:
            checkpoint = parse_checkpoint(open_note(row["note"], self._verifiers))
        except UnknownKey:
            raise
        except (BadSignature, BadNote):
            raise BadSignature("the note of this checkpoint is not what was signed") from None
        if checkpoint.size != row["size"] or checkpoint.root != row["root"] or checkpoint.origin != self._origin:
            raise BadSignature("the columns of this checkpoint differ from its note")
        return checkpoint

    @property
    def _origin(self) -> str:
        return self._verifiers[0].name if self._verifiers else ""
