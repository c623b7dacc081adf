"""Raw content of a Binary on its way in: pieces wait in the database until their version is written."""

from __future__ import annotations

import base64
import contextlib
import uuid
from collections.abc import AsyncGenerator

from msgspec import Struct
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.database import Database
from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.records import Saved

PIECE = 768 * 1024  # bytes of content; as base64 a mebibyte, without padding but for the last
DATA = b',"data":"'
_FORGOTTEN = text(
    "DELETE FROM binary_upload WHERE datastore_id = :datastore AND stored < now() - make_interval(days => 1)"
)
_PUT = text(
    """INSERT INTO binary_upload (datastore_id, upload, number, piece)
    VALUES (:datastore, CAST(:upload AS uuid), :number, :piece)"""
)
_DROP = text("DELETE FROM binary_upload WHERE datastore_id = :datastore AND upload = CAST(:upload AS uuid)")
# One aggregate over head, pieces and end: no second copy of the whole is made on the way.
_ATTACH = text(
    """UPDATE fhir_version v SET data_at = octet_length(v.body) - 1 + octet_length(CAST(:data AS bytea)),
    body = (SELECT string_agg(x.piece, CAST('' AS bytea) ORDER BY x.number) FROM (
        SELECT -1 AS number, substring(v.body FROM 1 FOR octet_length(v.body) - 1) || CAST(:data AS bytea) AS piece
        UNION ALL SELECT number, piece FROM binary_upload
            WHERE datastore_id = :datastore AND upload = CAST(:upload AS uuid)
        UNION ALL SELECT :pieces, CAST(:ending AS bytea)) AS x)
    WHERE v.datastore_id = :datastore AND v.resource_type = 'Binary' AND v.resource_id = :id AND v.version = :version"""
)


class Upload(Struct, frozen=True):
    """Pieces 0 to `pieces` - 1, together `digits` of base64."""

    id: str
    pieces: int
    digits: int


class Uploads:
    """One per datastore."""

    def __init__(self, database: Database, datastore: int) -> None:
        self._database = database
        self._datastore = datastore

    async def stage(self, first: bytes, rest: AsyncGenerator[bytes]) -> Upload:
        """Each piece in a transaction of its own: a slow sender holds no connection."""
        upload, number, digits = str(uuid.uuid4()), 0, 0
        held = bytearray(first)
        await self._execute(_FORGOTTEN)
        try:
            async with contextlib.aclosing(rest) as parts:
                async for part in parts:
                    held += part
                    while len(held) > PIECE:
                        digits += await self._put(upload, number, bytes(held[:PIECE]))
                        number += 1
                        del held[:PIECE]
            digits += await self._put(upload, number, bytes(held))
        except BaseException:
            await self.drop(upload)
            raise
        return Upload(upload, number + 1, digits)

    async def attach(self, connection: AsyncConnection, saved: Saved, upload: Upload) -> None:
        """Completes the version that was just saved without its content, in the same transaction."""
        own = {"datastore": self._datastore, "upload": upload.id}
        written = {"id": saved.id, "version": saved.version, "data": DATA, "ending": b'"}', "pieces": upload.pieces}
        await connection.execute(_ATTACH, own | written)
        taken = await connection.execute(_DROP, own)
        if taken.rowcount != upload.pieces:
            raise Fault(409, "conflict", "The content took too long to arrive; send it again.")

    async def drop(self, upload: str) -> None:
        await self._execute(_DROP, upload=upload)

    async def _put(self, upload: str, number: int, content: bytes) -> int:
        piece = base64.b64encode(content)
        await self._execute(_PUT, upload=upload, number=number, piece=piece)
        return len(piece)

    async def _execute(self, statement: TextClause, **values: object) -> None:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(statement, {"datastore": self._datastore, **values})

        await self._database.write(work)
