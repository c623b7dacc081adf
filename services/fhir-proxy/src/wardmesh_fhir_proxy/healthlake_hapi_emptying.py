"""Empties a partition of HAPI one resource after the other: HAPI has no operation for a whole one (ADR 37)."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import urlsplit

from wardmesh_common.errors import BadUpstream
from wardmesh_fhir_proxy.healthlake_hapi_server import CONFLICT, Errand, Refusal, document

PAGE = 200
ROUND, LARGEST_ROUND = 500, 8000  # resources deleted in one transaction; those that refer to one another go together
AT_ONCE = 4
MARGIN_SECONDS = 3.0  # kept for the answer
GOES_ON = "HAPI removes one resource after the other, and the time of the call is over: delete it again to go on."
NO_EXPUNGE = (
    "HAPI does not expunge (is it switched on there?), so only a datastore that never held data can be deleted."
)
HELD = "HAPI refused to delete what the datastore holds: other resources may refer to it."
# No id of dots alone: `Patient/../$expunge` would be the operation of the whole server.
_URL = re.compile(r"([A-Z][A-Za-z]{2,63}/(?!\.+(?:/|$))[A-Za-z0-9.-]{1,64})(?:/_history/[A-Za-z0-9.-]{1,64})?")
_EXPUNGE = [
    {"name": "expungeDeletedResources", "valueBoolean": True},
    {"name": "expungePreviousVersions", "valueBoolean": True},
]


async def empty(errand: Errand, datastore: str) -> None:
    """Nothing is left afterwards, not even versions of what was deleted. Raises Refusal where that was not reached."""
    most, tried = ROUND, False
    while held := await _held(errand, datastore, most):
        if not tried:  # before anything is lost
            first, tried = next(iter(held)), True
            await _expunged(errand, datastore, first)
            held = {name: deleted for name, deleted in held.items() if name != first or not deleted}
        live = [name for name, deleted in held.items() if not deleted]
        if live and not await _deleted(errand, datastore, live):
            most *= 2
            if most > LARGEST_ROUND:
                raise Refusal(CONFLICT, HELD)
            continue
        names = list(held)
        for start in range(0, len(names), AT_ONCE):
            if errand.left < MARGIN_SECONDS:
                raise Refusal(CONFLICT, GOES_ON)
            await asyncio.gather(*(_expunged(errand, datastore, name) for name in names[start : start + AT_ONCE]))


async def _held(errand: Errand, datastore: str, most: int) -> dict[str, bool]:
    """`Type/id` of what the partition holds, newest first, and whether it is deleted. Raises Refusal, BadUpstream."""
    held: dict[str, bool] = {}
    following = f"{datastore}/_history?_count={PAGE}"
    while following and len(held) < most:
        if errand.left < MARGIN_SECONDS:
            raise Refusal(CONFLICT, GOES_ON)
        answer = await errand.get(following)
        history = document(answer)
        if answer.status != 200 or history.get("resourceType") != "Bundle":
            raise BadUpstream("HAPI did not say what the partition holds.")
        for entry in history.get("entry") or ():
            name, deleted = _named(entry)
            held.setdefault(name, deleted)
        following = _following(history, datastore)
    return held


def _named(entry: Any) -> tuple[str, bool]:
    request: Any = entry.get("request") if isinstance(entry, dict) else None
    told = _URL.fullmatch(str(request.get("url", ""))) if isinstance(request, dict) else None
    if told is None:
        raise BadUpstream("HAPI's history does not say what its entries are about.")
    return told[1], request.get("method") == "DELETE"


def _following(history: dict[str, Any], datastore: str) -> str:
    """Below our own address of HAPI, whatever host its link names."""
    links = [link for link in history.get("link") or () if isinstance(link, dict) and link.get("relation") == "next"]
    query = urlsplit(str(links[0].get("url", ""))).query if links else ""
    return f"{datastore}?{query}" if query else ""


async def _deleted(errand: Errand, datastore: str, names: list[str]) -> bool:
    """False when HAPI keeps them because others refer to them."""
    entries = [{"request": {"method": "DELETE", "url": name}} for name in names]
    answer = await errand.post(datastore, {"resourceType": "Bundle", "type": "transaction", "entry": entries})
    if answer.status not in (200, 409):
        raise Refusal(CONFLICT, HELD)
    return answer.status == 200


async def _expunged(errand: Errand, datastore: str, name: str) -> None:
    """One resource, named by its id in its partition: what HAPI expunges by type or as a whole, it does everywhere."""
    answer = await errand.change(f"{datastore}/{name}/$expunge", _EXPUNGE)
    if answer.status not in (200, 404):  # 404: gone already, by a call before
        raise Refusal(CONFLICT, NO_EXPUNGE)
