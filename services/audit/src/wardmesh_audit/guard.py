"""The guard against an old copy of the database: nothing is appended or signed behind what was already published."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import Struct

from wardmesh_audit.jetstream import Requester, last_message, last_sequence
from wardmesh_audit.note import BadNote, Checkpoint, Verifier, open_note, parse_checkpoint
from wardmesh_audit.streams import AUDIT_CHECKPOINT, audit_stream


class GuardTripped(Exception):
    """The database is behind, or another history than, what the outside has seen. Only a person may go on."""

    def __init__(self, text: str, *, database: int, outside: int) -> None:
        super().__init__(text)
        self.database = database
        self.outside = outside


class Outside(Struct, frozen=True):
    """What has been published so far, read before the database so that normal progress never looks like a rollback."""

    published: int  # events in the AUDIT stream
    checkpoint: Checkpoint | None  # newest in AUDIT_CHECKPOINT
    witnessed: Checkpoint | None = None  # newest that a witness has cosigned


Witnessed = Callable[[], Awaitable[Checkpoint | None]]


async def _nothing_witnessed() -> None:
    return None


async def read_outside(
    nc: Requester, verifiers: list[Verifier], log_id: int = 0, *, witnessed: Witnessed = _nothing_witnessed
) -> Outside:
    """Raises the note errors when the newest published checkpoint is not signed by a key we know."""
    seen = await witnessed()
    published = await last_sequence(nc, audit_stream(log_id))
    message = await last_message(nc, AUDIT_CHECKPOINT, f"audit.checkpoint.{log_id}")
    if message is None:
        return Outside(published, None, seen)
    try:
        note = message.data.decode()
    except UnicodeDecodeError:
        raise BadNote("the published checkpoint is not text") from None
    text = open_note(note, verifiers) if verifiers else note.partition("\n\n")[0] + "\n"
    return Outside(published, parse_checkpoint(text), seen)


def check(outside: Outside, size: int, root: bytes) -> None:
    """Raises GuardTripped when the outside is ahead of the database or has another root for the same size."""
    if outside.published > size:
        raise GuardTripped("AUDIT holds events that the database does not", database=size, outside=outside.published)
    check_checkpoint(outside.checkpoint, size, root)
    check_checkpoint(outside.witnessed, size, root)


def check_checkpoint(checkpoint: Checkpoint | None, size: int, root: bytes) -> None:
    if checkpoint is None:
        return
    if checkpoint.size > size:
        raise GuardTripped("a checkpoint is ahead of the database", database=size, outside=checkpoint.size)
    if checkpoint.size == size and checkpoint.root != root:
        raise GuardTripped("a checkpoint has another root", database=size, outside=checkpoint.size)
