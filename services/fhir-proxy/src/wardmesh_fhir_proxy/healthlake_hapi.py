"""HAPI as a back end of datastores: partitions in its URLs, $export and $import; what it cannot do is refused."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from botocore.utils import parse_to_aware_datetime

from wardmesh_fhir_proxy import healthlake_hapi_jobs as jobs
from wardmesh_fhir_proxy.descriptor import Descriptor
from wardmesh_fhir_proxy.healthlake_backend import Order, Said
from wardmesh_fhir_proxy.healthlake_hapi_emptying import empty
from wardmesh_fhir_proxy.healthlake_hapi_limits import LIMITS, check
from wardmesh_fhir_proxy.healthlake_hapi_partitions import (
    CREATE,
    DELETE,
    Note,
    Partition,
    described,
    identified,
    parameters,
    partitions,
    required,
)
from wardmesh_fhir_proxy.healthlake_hapi_server import CONFLICT, VALIDATION, Errand, HapiServer, Refusal
from wardmesh_fhir_proxy.healthlake_model import TOKEN, Model

ACCOUNT = "000000000000"  # there are no accounts
MAX_PAGE = 500
Answer = dict[str, Any]


class Hapi:
    """Keeps nothing: every replica finds the same at HAPI (ADR 31)."""

    def __init__(self, server: HapiServer, model: Model, now: Callable[[], float] = time.time) -> None:
        self._server, self._model, self._now = server, model, now
        self._does: dict[str, Callable[[Errand], Awaitable[Answer]]] = {
            "$create-datastore": self._create,
            "$delete-datastore": self._delete,
            "$describe-datastore": self._describe,
            "$list-datastores": self._list,
            "$start-import-job": self._start_import,
            "$start-export-job": self._start_export,
            "$stop-export-job": self._stop_export,
            "$describe-import-job": self._import_job,
            "$describe-export-job": self._export_job,
        }

    @property
    def operations(self) -> frozenset[str]:
        return frozenset(self._does)

    async def ask(self, place: Descriptor, order: Order) -> Said:
        self._model.written(order.operation, order.asked, order.token)  # the same form is asked of every back end
        try:
            check(order.operation, order.asked)
            return Said(200, await self._does[order.operation](self._server.errand(place, order)))
        except Refusal as refusal:
            return Said(400, {}, refusal.code, refusal.text)

    async def _create(self, errand: Errand) -> Answer:
        """A repeated creation finds the partition that the first one made."""
        asked = errand.order.asked
        if asked.get("DatastoreTypeVersion") != "R4":
            raise Refusal(VALIDATION, "The datastore type version must be R4.")
        name = str(asked.get("DatastoreName") or "")
        datastore, number = identified(str(asked.get(TOKEN) or errand.order.token))
        wanted = Partition(number, datastore, Note(name, int(self._now())))
        description = described(wanted.note)
        known = (await partitions(errand)).get(datastore)
        if known is None:
            answer = await errand.change(CREATE, parameters(wanted, description))
            known = wanted if answer.status < 300 else (await partitions(errand)).get(datastore)
        if known is None:
            raise Refusal(
                CONFLICT, "HAPI refused the partition: its number may be taken. Create it with another token."
            )
        if known.note.name != name:
            raise Refusal(CONFLICT, "The client token was used for another datastore.")
        return _named(errand, known, "ACTIVE")

    async def _delete(self, errand: Errand) -> Answer:
        """HAPI removes a partition without its data, so the data goes first."""
        found = await required(errand, _datastore(errand))
        await empty(errand, found.datastore)
        answer = await errand.change(DELETE, [{"name": "id", "valueInteger": found.number}])
        if answer.status >= 300 and found.datastore in await partitions(errand):
            raise Refusal(CONFLICT, "HAPI refused to remove the partition.")
        return _named(errand, found, "DELETING")

    async def _describe(self, errand: Errand) -> Answer:
        found = await required(errand, _datastore(errand))
        return {"DatastoreProperties": {**_properties(errand, found), "Limits": list(LIMITS)}}

    async def _list(self, errand: Errand) -> Answer:
        """Pages by id: a token is the id that the last page ended with."""
        asked = errand.order.asked
        after, most = str(asked.get("NextToken") or ""), asked.get("MaxResults") or MAX_PAGE
        if not isinstance(most, int) or not 1 <= most <= MAX_PAGE:
            raise Refusal(VALIDATION, f"MaxResults must lie between 1 and {MAX_PAGE}.")
        found = sorted((await partitions(errand)).values(), key=lambda each: each.datastore)
        fitting = [each for each in found if each.datastore > after and _fits(each, asked.get("Filter") or {})]
        answer: Answer = {"DatastorePropertiesList": [_properties(errand, each) for each in fitting[:most]]}
        return {**answer, "NextToken": fitting[most - 1].datastore} if len(fitting) > most else answer

    async def _start_import(self, errand: Errand) -> Answer:
        return await jobs.start_import(errand, (await required(errand, _datastore(errand))).datastore)

    async def _start_export(self, errand: Errand) -> Answer:
        return await jobs.start_export(errand, (await required(errand, _datastore(errand))).datastore)

    async def _stop_export(self, errand: Errand) -> Answer:
        return await jobs.stop_export(errand, (await required(errand, _datastore(errand))).datastore)

    async def _import_job(self, errand: Errand) -> Answer:
        found = await required(errand, _datastore(errand))
        return {"ImportJobProperties": await jobs.described(errand, "import", found.datastore)}

    async def _export_job(self, errand: Errand) -> Answer:
        found = await required(errand, _datastore(errand))
        return {"ExportJobProperties": await jobs.described(errand, "export", found.datastore)}


def _datastore(errand: Errand) -> str:
    return str(errand.order.asked.get("DatastoreId") or "")


def _fits(partition: Partition, wanted: dict[str, Any]) -> bool:
    """A datastore whose time of creation nobody wrote down fits no filter of time."""
    created = partition.created
    before, after = (wanted.get(name) for name in ("CreatedBefore", "CreatedAfter"))
    return (
        wanted.get("DatastoreName") in (None, partition.note.name)
        and wanted.get("DatastoreStatus") in (None, "ACTIVE")
        and (before is None or (created is not None and created < parse_to_aware_datetime(before)))
        and (after is None or (created is not None and created > parse_to_aware_datetime(after)))
    )


def _named(errand: Errand, partition: Partition, status: str) -> Answer:
    region = errand.place.healthlake.region
    return {
        "DatastoreId": partition.datastore,
        "DatastoreArn": f"arn:aws:healthlake:{region}:{ACCOUNT}:datastore/fhir/{partition.datastore}",
        "DatastoreStatus": status,
        "DatastoreEndpoint": f"{errand.place.bases.patient}/{partition.datastore}/",
    }


def _properties(errand: Errand, partition: Partition) -> Answer:
    shown = {**_named(errand, partition, "ACTIVE"), "DatastoreTypeVersion": "R4"}
    if partition.note.name:
        shown["DatastoreName"] = partition.note.name
    if partition.created:
        shown["CreatedAt"] = partition.created.isoformat().replace("+00:00", "Z")
    return shown
