"""NextToken: sealed, so that it works only for the list and the filter that it came from."""

from __future__ import annotations

from hashlib import sha256

import msgspec

from wardmesh_fhir_store.control.faults import invalid
from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.paging import CursorSealer


class PageTokens:
    """`key` is shared by all replicas."""

    def __init__(self, key: bytes) -> None:
        self._sealer = CursorSealer(key)

    def issue(self, listing: str, asked: object, after: list[str]) -> str:
        """`asked` is everything that decides what the list holds."""
        return self._sealer.issue(_place(listing, asked), "", [*after])

    def open(self, token: str | None, listing: str, asked: object) -> list[str]:
        """Where the last page ended; empty for the first one. Raises ValidationException."""
        if not token:
            return []
        try:
            return [part or "" for part in self._sealer.open(token, _place(listing, asked)).after]
        except Fault:
            raise invalid("The NextToken is not one of this list, or it has expired.") from None


def _place(listing: str, asked: object) -> str:
    return f"{listing}:{sha256(msgspec.json.encode(asked, order='sorted')).hexdigest()}"
