"""From a URL to the datastore it names: `/fhir` is the default one, `/datastore/{id}/r4` is any."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from msgspec import structs

from wardmesh_fhir_store.datastores import Addresses, Datastores
from wardmesh_fhir_store.faults import not_found
from wardmesh_fhir_store.jobs.bulk import BulkPlace
from wardmesh_fhir_store.router import Router
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.wire import Request, Response

_OWN = re.compile(r"/([0-9a-f]{32})/r4(?:/(.*))?", re.DOTALL)


class Front:
    """Keeps one router per open datastore."""

    def __init__(self, addresses: Addresses, datastores: Datastores, bulk: BulkPlace | None) -> None:
        self._addresses = addresses
        self._datastores = datastores
        self._bulk = bulk
        self._base_path = urlsplit(addresses.base).path
        self._prefix_path = urlsplit(addresses.prefix).path
        self._routers: dict[str, tuple[Store, Router]] = {}

    async def handle(self, request: Request) -> Response:
        """Raises Fault."""
        path = "/" + request.path
        if path == self._base_path or path.startswith(self._base_path + "/"):
            store = await self._datastores.active(self._addresses.default, self._addresses.base)
            rest = path[len(self._base_path) :]
        else:
            match = _OWN.fullmatch(path.removeprefix(self._prefix_path)) if path.startswith(self._prefix_path) else None
            if match is None:
                raise not_found("The FHIR base is elsewhere.")
            await self._check_namespace(match[1], request.headers.get("x-wardmesh-namespace", ""))
            store = await self._datastores.active(match[1])
            rest = match[2] or ""
        inner = structs.replace(request, path=rest.strip("/"))
        return await self._router(store).handle(inner)

    async def _check_namespace(self, public_id: str, named: str) -> None:
        """Who names a region sees the datastores of that region only, as at AWS; raises 404 (HL-16)."""
        if named and (await self._datastores.registered(public_id)).namespace != named:
            raise not_found("There is no such datastore.")

    def _router(self, store: Store) -> Router:
        held = self._routers.get(store.base)
        if held is None or held[0] is not store:
            held = store, Router(store, self._bulk)
            self._routers[store.base] = held
        return held[1]
