"""Creates, describes, lists, deletes and tags datastores: rows of the registry, one name space per region."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.control.arns import arn_of
from wardmesh_fhir_store.control.faults import conflict, invalid, not_found
from wardmesh_fhir_store.control.pages import PageTokens
from wardmesh_fhir_store.control.shapes import CONFIGURATIONS, CreateDatastore, DatastoreFilter, ListDatastores, Tag
from wardmesh_fhir_store.control.shapes import moment_of as _moment
from wardmesh_fhir_store.database import Database
from wardmesh_fhir_store.datastores import Addresses

MOST_TAGS = 200
_COLUMNS = "datastore_id, public_id, name, status, tags, created, namespace, settings, request_hash"
_CREATE = text(
    f"""INSERT INTO datastore (public_id, name, status, tags, client_token, link_key, namespace, settings, request_hash)
    VALUES (:public_id, :name, 'CREATING', CAST(:tags AS jsonb), :token, :link_key, :namespace,
        CAST(:settings AS jsonb), :request_hash)
    ON CONFLICT (namespace, client_token) DO NOTHING RETURNING {_COLUMNS}"""  # noqa: S608 - our own column names
)
_BY_TOKEN = text(f"SELECT {_COLUMNS} FROM datastore WHERE namespace = :namespace AND client_token = :token")  # noqa: S608
_BY_ID = text(f"SELECT {_COLUMNS} FROM datastore WHERE namespace = :namespace AND public_id = :public_id")  # noqa: S608
_ACTIVATE = text(
    "UPDATE datastore SET status = 'ACTIVE', status_since = now() WHERE datastore_id = :key AND status = 'CREATING'"
)
_LIST = text(
    f"""SELECT {_COLUMNS} FROM datastore WHERE namespace = :namespace AND datastore_id > :after
    AND (CAST(:name AS text) IS NULL OR name = :name) AND (CAST(:status AS text) IS NULL OR status = :status)
    AND (CAST(:before AS timestamptz) IS NULL OR created < :before)
    AND (CAST(:since AS timestamptz) IS NULL OR created > :since)
    ORDER BY datastore_id LIMIT :size"""  # noqa: S608
)
# Whoever works on the datastore or its jobs loses them: their next write is refused.
_DELETE = text(
    """UPDATE datastore SET status = 'DELETING', status_since = now(), worker = NULL, lease_until = NULL
    WHERE datastore_id = :key AND status IN ('CREATING', 'ACTIVE')"""
)
_STOP_JOBS = text(
    """UPDATE job SET status = 'STOPPED', ended = now(), message = 'The datastore was deleted.', worker = NULL
    WHERE datastore_id = :key AND status IN ('SUBMITTED', 'IN_PROGRESS', 'STOP_REQUESTED')"""
)
_TAGS = text(
    f"SELECT {_COLUMNS} FROM datastore WHERE namespace = :namespace AND public_id = :public_id FOR UPDATE"  # noqa: S608
)
_SET_TAGS = text("UPDATE datastore SET tags = CAST(:tags AS jsonb) WHERE datastore_id = :key")
Wake = Callable[[], None]


class Row(Struct, frozen=True):
    """One datastore of the registry."""

    key: int
    public_id: str
    name: str
    status: str
    tags: dict[str, str]
    created: float
    namespace: str
    settings: dict[str, Any]
    request_hash: bytes


def _row(found: RowMapping) -> Row:
    return Row(
        found["datastore_id"],
        found["public_id"],
        found["name"],
        found["status"],
        found["tags"],
        found["created"].timestamp(),
        found["namespace"],
        found["settings"],
        found["request_hash"] or b"",
    )


def hash_of(request: Struct) -> bytes:
    """The same token with another request is refused."""
    plain = msgspec.structs.replace(request, client_token=None)
    return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).digest()


class DatastoreControl:
    """`wake` tells the workers of this process that there is something to do; `forget` drops what was read."""

    def __init__(
        self, database: Database, addresses: Addresses, tokens: PageTokens, wake: Wake, forget: Callable[[str], None]
    ) -> None:
        self._database = database
        self._addresses = addresses
        self._tokens = tokens
        self._wake = wake
        self._forget = forget

    async def create(self, namespace: str, request: CreateDatastore) -> dict[str, Any]:
        """Every datastore begins as CREATING; one without sample data is ready when the answer arrives."""
        settings = _settings(request)
        tags = _checked({}, request.tags)
        if request.datastore_name is not None and not request.datastore_name.isprintable():
            raise invalid("The datastore name holds characters that are not allowed.")
        values = {
            "public_id": secrets.token_hex(16),
            "name": request.datastore_name or "",
            "tags": msgspec.json.encode(tags).decode(),
            "token": request.client_token,
            "link_key": secrets.token_bytes(32),
            "namespace": namespace,
            "settings": msgspec.json.encode(settings).decode(),
            "request_hash": hash_of(request),
        }

        async def insert(connection: AsyncConnection) -> tuple[Row, bool]:
            made = (await connection.execute(_CREATE, values)).mappings().first()
            if made is not None:
                return _row(made), True
            known = {"namespace": namespace, "token": request.client_token}
            return _row((await connection.execute(_BY_TOKEN, known)).mappings().one()), False

        row, new = await self._database.write(insert)
        if not new and row.request_hash != values["request_hash"]:
            raise conflict("The client token was used for another datastore.")
        if new and "PreloadDataConfig" in settings:
            self._wake()
        elif new:
            await self._database.write(lambda connection: connection.execute(_ACTIVATE, {"key": row.key}))
        return self._named(row)

    async def describe(self, namespace: str, public_id: str) -> dict[str, Any]:
        return {"DatastoreProperties": self._properties(await self.row(namespace, public_id))}

    async def listed(self, namespace: str, request: ListDatastores) -> dict[str, Any]:
        wanted = request.filter or DatastoreFilter()
        listing = f"datastores/{namespace}"
        after = self._tokens.open(request.next_token, listing, wanted)
        values = {
            "namespace": namespace,
            "after": int(after[0]) if after else 0,
            "name": wanted.datastore_name,
            "status": wanted.datastore_status,
            "before": None if wanted.created_before is None else _moment(wanted.created_before),
            "since": None if wanted.created_after is None else _moment(wanted.created_after),
            "size": request.max_results + 1,
        }

        async def look(connection: AsyncConnection) -> list[Row]:
            return [_row(found) for found in (await connection.execute(_LIST, values)).mappings()]

        rows = await self._database.read(look)
        page = rows[: request.max_results]
        answer: dict[str, Any] = {"DatastorePropertiesList": [self._properties(row) for row in page]}
        if len(rows) > len(page):
            answer["NextToken"] = self._tokens.issue(listing, wanted, [str(page[-1].key)])
        return answer

    async def delete(self, namespace: str, public_id: str) -> dict[str, Any]:
        """Requests are refused from now on; workers remove the data."""
        row = await self.row(namespace, public_id)
        if public_id == self._addresses.default:
            raise conflict("The default datastore of an installation stays.")
        if row.status == "DELETED":
            raise not_found("The datastore is deleted.")

        async def begin(connection: AsyncConnection) -> None:
            await connection.execute(_DELETE, {"key": row.key})
            await connection.execute(_STOP_JOBS, {"key": row.key})

        await self._database.write(begin)
        self._forget(public_id)
        self._wake()
        return self._named(msgspec.structs.replace(row, status="DELETING"))

    async def tags(self, namespace: str, public_id: str) -> dict[str, Any]:
        row = await self.row(namespace, public_id)
        return {"Tags": [{"Key": key, "Value": value} for key, value in sorted(row.tags.items())]}

    async def tag(self, namespace: str, public_id: str, tags: list[Tag]) -> dict[str, Any]:
        return await self._change_tags(namespace, public_id, lambda known: _checked(known, tags))

    async def untag(self, namespace: str, public_id: str, keys: list[str]) -> dict[str, Any]:
        gone = set(keys)
        return await self._change_tags(
            namespace, public_id, lambda known: {k: v for k, v in known.items() if k not in gone}
        )

    async def _change_tags(
        self, namespace: str, public_id: str, change: Callable[[dict[str, str]], dict[str, str]]
    ) -> dict[str, Any]:
        async def work(connection: AsyncConnection) -> None:
            values = {"namespace": namespace, "public_id": public_id}
            found = (await connection.execute(_TAGS, values)).mappings().first()
            if found is None or found["status"] == "DELETED":
                raise not_found()
            tags = msgspec.json.encode(change(found["tags"])).decode()
            await connection.execute(_SET_TAGS, {"key": found["datastore_id"], "tags": tags})

        await self._database.write(work)
        return {}

    async def row(self, namespace: str, public_id: str) -> Row:
        """Also one that was deleted. Raises ResourceNotFoundException."""

        async def look(connection: AsyncConnection) -> RowMapping | None:
            values = {"namespace": namespace, "public_id": public_id}
            return (await connection.execute(_BY_ID, values)).mappings().first()

        found = await self._database.read(look)
        if found is None:
            raise not_found()
        return _row(found)

    def _named(self, row: Row) -> dict[str, Any]:
        return {
            "DatastoreId": row.public_id,
            "DatastoreArn": arn_of(row.namespace, row.public_id),
            "DatastoreStatus": row.status,
            "DatastoreEndpoint": f"{self._addresses.prefix}/{row.public_id}/r4/",
        }

    def _properties(self, row: Row) -> dict[str, Any]:
        named = {"DatastoreName": row.name} if row.name else {}
        beside = {"CreatedAt": row.created, "DatastoreTypeVersion": "R4"}
        return self._named(row) | named | beside | row.settings


def _settings(request: CreateDatastore) -> dict[str, Any]:
    given = {
        "SseConfiguration": request.sse_configuration,
        "PreloadDataConfig": request.preload_data_config,
        "IdentityProviderConfiguration": request.identity_provider_configuration,
    }
    found = {name: value for name, value in given.items() if value is not None}
    for name, value in found.items():
        try:
            msgspec.convert(value, CONFIGURATIONS[name])
        except msgspec.ValidationError:
            raise invalid(f"{name} does not have the shape that HealthLake gives it.") from None
    return found


def _checked(known: dict[str, str], tags: list[Tag]) -> dict[str, str]:
    found = known | {tag.key: tag.value for tag in tags}
    if len(found) > MOST_TAGS:
        raise invalid("A datastore has at most 200 tags.")
    return found
