"""The wall inside the store: a SMART token reaches what its scopes name, and with patient scopes one record only."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct
from sqlalchemy import not_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store import tables
from wardmesh_fhir_store.entries import call_of, read_bundle
from wardmesh_fhir_store.router import Router
from wardmesh_fhir_store.smart_scopes import ANY, Access
from wardmesh_fhir_store.smart_wishes import Wish, forbidden, form_of, wish_of
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.wire import Request, Response

PATIENT = "Patient"
# Types outside every record that a record refers to; anything else outside of it stays closed to patient scopes.
SUPPORTING = frozenset(
    {"Endpoint", "HealthcareService", "InsurancePlan", "Location", "Medication", "Organization"}
    | {"Practitioner", "PractitionerRole", "Questionnaire", "Substance"}
)
_NOT_GRANTED = "The scopes of the token do not cover this."
_OUTSIDE = "This is outside the record that the token was issued for."


class _Found(Struct, rename="camel"):
    resource_type: str = ""
    id: str = ""


class Wall:
    """One per store; `router` carries out what was allowed."""

    def __init__(self, store: Store, router: Router) -> None:
        self._store = store
        self._router = router
        self._members = store.definitions.compartments[PATIENT]

    async def handle(self, access: Access, request: Request) -> Response:
        """Raises Fault, 403 when the token does not reach that far."""
        if request.method == "POST" and not request.path:
            self._check_bundle(access, request)
            return await self._router.handle(request)
        wish = wish_of(request)
        if wish.beyond and not access.everywhere("s", ANY):
            raise forbidden("A search through other types needs scopes for all of them.")
        if access.everywhere(wish.letters, wish.kind):
            answer = await self._router.handle(request)
        else:
            answer = await self._router.handle(await self._narrowed(access, wish, request))
        return await self._pruned(access, answer) if wish.includes else answer

    def _check_bundle(self, access: Access, request: Request) -> None:
        """Entry by entry; one that is not covered refuses the whole (PX-10)."""
        for index, entry in enumerate(read_bundle(request.body).entry):
            call = call_of(index, entry, self._store.base)
            if not call.path and call.method == "POST":
                raise forbidden("A Bundle inside a Bundle is not carried out.")
            wish = wish_of(call.request())
            wide = wish.beyond or wish.includes
            if not access.everywhere(wish.letters, wish.kind) or (wide and not access.everywhere("rs", ANY)):
                raise forbidden(_NOT_GRANTED)

    async def _narrowed(self, access: Access, wish: Wish, request: Request) -> Request:
        """The request as patient scopes allow it: a search becomes one of the patient's own record."""
        if not access.in_record(wish.letters, wish.kind):
            raise forbidden(_NOT_GRANTED)
        if wish.past or set(wish.letters) & set("cud"):
            raise forbidden("Patient scopes read the current record, and nothing else, at this base.")
        own = f"{PATIENT}/{access.patient}"
        if not wish.search:
            await self._check_instance(access, wish)
            return request
        if wish.kind in SUPPORTING and not wish.id:
            return request
        if wish.id not in ("", own) or (wish.kind not in self._members and wish.kind != ANY):
            raise forbidden(_OUTSIDE)
        pairs = "&".join(filter(None, (request.query, form_of(request))))
        return Request(method="GET", path=f"{own}/{wish.kind}", query=pairs, headers=request.headers)

    async def _check_instance(self, access: Access, wish: Wish) -> None:
        """The same answer for what is not there and for what is another person's."""
        if wish.kind == ANY:  # $everything
            inside = wish.id == access.patient
        elif wish.kind in SUPPORTING:
            inside = True
        else:
            inside = (wish.kind, wish.id) in await self._inside(access.patient, [(wish.kind, wish.id)])
        if not inside:
            raise forbidden(_OUTSIDE)

    async def _inside(self, patient: str, found: list[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of the named resources that are members of this patient's compartment."""

        async def look(connection: AsyncConnection) -> set[tuple[str, str]]:
            inside: set[tuple[str, str]] = set()
            for kind in {kind for kind, _ in found} & set(self._members):
                row = tables.current.alias()
                query = select(row.c.resource_id).where(
                    row.c.datastore_id == self._store.datastore,
                    row.c.resource_type == kind,
                    not_(row.c.deleted),
                    row.c.resource_id.in_([identity for other, identity in found if other == kind]),
                    self._store.conditions.in_compartment(row, PATIENT, patient, kind),
                )
                inside |= {(kind, identity) for identity in (await connection.execute(query)).scalars()}
            return inside

        return await self._store.database.read(look)

    async def _pruned(self, access: Access, answer: Response) -> Response:
        """Included resources are held against the scopes too: what is not covered is left out."""
        if answer.status != 200 or access.everywhere("rs", ANY):
            return answer
        document: dict[str, Any] = msgspec.json.decode(answer.body, type=dict[str, Raw])
        entries = msgspec.json.decode(document.get("entry", b"[]"), type=list[dict[str, Raw]])
        named = [self._included(entry) for entry in entries]
        inside = await self._inside(access.patient, [one for one in named if one]) if access.patient else set()
        kept = [
            entry
            for entry, one in zip(entries, named, strict=True)
            if one is None or self._reaches(access, one, inside)
        ]
        document["entry"] = kept
        if not kept:
            del document["entry"]
        return msgspec.structs.replace(answer, body=msgspec.json.encode(document))

    @staticmethod
    def _included(entry: dict[str, Raw]) -> tuple[str, str] | None:
        """Type and id of an included entry; None for a match or an outcome."""
        search = msgspec.json.decode(entry.get("search", b"{}"), type=dict[str, str])
        if search.get("mode") != "include":
            return None
        resource = msgspec.json.decode(entry["resource"], type=_Found)
        return resource.resource_type, resource.id

    @staticmethod
    def _reaches(access: Access, one: tuple[str, str], inside: set[tuple[str, str]]) -> bool:
        kind = one[0]
        if access.everywhere("r", kind):
            return True
        return access.in_record("r", kind) and (kind in SUPPORTING or one in inside)
