"""Decompress an upstream body piece by piece with caps on size and ratio: a bomb stops early (PX-6)."""

from __future__ import annotations

import zlib

from wardmesh_common.errors import BadUpstream, TooLarge

MAX_RATIO = 200
RATIO_FLOOR = 1 << 20  # small answers may compress better than any ratio without harm
STEP = 1 << 18


class Inflater:
    """gzip or deflate to plain bytes; `feed` never makes more than the cap."""

    def __init__(self, encoding: str, cap: int) -> None:
        if encoding not in {"gzip", "x-gzip", "deflate"}:
            raise BadUpstream("The platform used a compression we did not ask for.")
        self._bits = 47 if encoding != "deflate" else zlib.MAX_WBITS
        self._inflate = zlib.decompressobj(self._bits)
        self._cap = cap
        self._in = 0
        self._out = 0

    def feed(self, data: bytes) -> list[bytes]:
        self._in += len(data)
        pieces: list[bytes] = []
        try:
            while data:
                if self._inflate.eof:
                    self._inflate = zlib.decompressobj(self._bits)  # gzip may have several members (RFC 1952 §2.2)
                piece = self._inflate.decompress(data, STEP)
                self._out += len(piece)
                self._check()
                if piece:
                    pieces.append(piece)
                data = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
        except zlib.error:
            raise BadUpstream("The platform sent a damaged answer.") from None
        return pieces

    def finish(self) -> bytes:
        try:
            rest = self._inflate.flush(STEP)
        except zlib.error:
            raise BadUpstream("The platform sent a damaged answer.") from None
        self._out += len(rest)
        self._check()
        if not self._inflate.eof:
            raise BadUpstream("The platform's answer ended early.")
        return rest

    def _check(self) -> None:
        if self._out > self._cap:
            raise TooLarge("The platform's answer is larger than the limit.")
        if self._out > RATIO_FLOOR and self._out > self._in * MAX_RATIO:
            raise TooLarge("The platform's answer expands beyond the limit.")
