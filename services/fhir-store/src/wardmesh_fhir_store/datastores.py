"""Opens datastores by their public id; what was read of one holds for a second on every replica (ST-66, ST-67)."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
from msgspec import Struct
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store import tables
from wardmesh_fhir_store.database import Database
from wardmesh_fhir_store.definitions import Definitions
from wardmesh_fhir_store.faults import Fault, not_found
from wardmesh_fhir_store.options import Options
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.validation import Validator

FRESH_SECONDS = 1.0


class Registered(Struct, frozen=True):
    """The row of one datastore."""

    key: int
    public_id: str
    status: str
    options: Options
    link_key: bytes
    namespace: str


class Addresses(Struct, frozen=True):
    """`base` is the FHIR base of the default datastore; every datastore has one of its own beside it."""

    base: str
    default: str

    @property
    def prefix(self) -> str:
        """`http://host/fhir` → `http://host/datastore`."""
        return self.base.removesuffix("/fhir") + "/datastore"

    def bases(self, public_id: str) -> tuple[str, ...]:
        """Every URL under which a datastore is known; an absolute reference to any of them is a relative one."""
        own = f"{self.prefix}/{public_id}/r4"
        return (own, self.base) if public_id == self.default else (own,)


class Datastores:
    """One per process; the definitions and the validator are shared by all datastores."""

    def __init__(
        self,
        database: Database,
        definitions: Definitions,
        validator: Validator,
        addresses: Addresses,
        *,
        told: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.database = database
        self.definitions = definitions
        self.validator = validator
        self.addresses = addresses
        self._told = told
        self._clock = clock
        self._known: dict[str, tuple[float, Registered]] = {}
        self._stores: dict[tuple[str, str], tuple[Registered, Store]] = {}

    async def active(self, public_id: str, base: str = "") -> Store:
        """404 for one that never was or is gone, 409 for one that is not ready or on its way out."""
        return await self.in_state(public_id, "ACTIVE", base)

    async def in_state(self, public_id: str, status: str, base: str = "") -> Store:
        """For the worker also one that is being made."""
        row = await self.registered(public_id)
        if row.status != status:
            raise Fault(409, "conflict", f"The datastore is {row.status}.")
        bases = self.addresses.bases(public_id)
        place = (public_id, base or bases[0])
        held = self._stores.get(place)
        if held is None or held[0] != row:
            ordered = (place[1], *(one for one in bases if one != place[1]))
            held = row, self._store(row, ordered)
            self._stores[place] = held
        return held[1]

    async def registered(self, public_id: str) -> Registered:
        """The row, at most a second old. Raises 404."""
        held = self._known.get(public_id)
        if held is None or held[0] < self._clock() - FRESH_SECONDS:
            held = self._clock(), await self._read(public_id)
            self._known[public_id] = held
        return held[1]

    def forget(self, public_id: str) -> None:
        """After a change made by this process."""
        self._known.pop(public_id, None)

    def _store(self, row: Registered, bases: tuple[str, ...]) -> Store:
        database = self.database.bound(row.key)
        return Store(
            database, self.definitions, self.validator, bases, row.key, row.link_key, row.options, told=self._told
        )

    async def _read(self, public_id: str) -> Registered:
        async def load(connection: AsyncConnection) -> Registered | None:
            columns = tables.datastore.c
            query = select(
                columns.datastore_id,
                columns.public_id,
                columns.status,
                columns.options,
                columns.link_key,
                columns.namespace,
            ).where(columns.public_id == public_id, columns.status != "DELETED")
            row = (await connection.execute(query)).first()
            if row is None:
                return None
            return Registered(row[0], row[1], row[2], msgspec.convert(row[3], Options), row[4], row[5])

        found = await self.database.read(load)
        if found is None:
            self._known.pop(public_id, None)
            raise not_found("There is no such datastore.")
        return found
