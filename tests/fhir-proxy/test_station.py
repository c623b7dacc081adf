"""The service as it runs: on a real broker, between stand-ins for auth and policy."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engines import nats
from proxy_mesh import ENVIRON, Mesh, proxy_mesh
from wardmesh_common.contracts import (
    ASK_CATALOGUE,
    EVENT_CATALOGUE_CHANGED,
    Touched,
)
from wardmesh_common.questions import Catalogue, Changed
from wardmesh_common.settings import BadSettings
from wardmesh_common.vocabulary import Obligations
from wardmesh_fhir_proxy import settings

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def nats_url() -> Iterator[str]:
    with nats() as running:
        yield running.url


@pytest.fixture
async def mesh(upstream: Any, tmp_path: Path, nats_url: str) -> AsyncIterator[Mesh]:
    async with proxy_mesh(upstream, tmp_path, nats_url) as made:
        yield made


async def test_a_read_travels_to_the_platform_with_the_opened_token_and_back(mesh: Mesh, upstream: Any) -> None:
    upstream.answer({"resourceType": "Patient", "id": "p1"}, ETag='W/"1"')
    reply, body = await mesh.read("read", "Patient", "p1")
    assert (reply.status, reply.headers["ETag"]) == (200, 'W/"1"')
    assert msgspec.json.decode(body) == {"resourceType": "Patient", "id": "p1"}
    assert upstream.requests[0].headers["Authorization"] == "Bearer platform-token"
    assert mesh.records.outcomes[0].touched == (
        Touched(patient="probe/Patient/p1", type="Patient", ids=("p1",), count=1),
    )


async def test_a_write_is_recorded_before_the_platform_sees_it(mesh: Mesh, upstream: Any) -> None:
    upstream.answer({"resourceType": "Patient", "id": "n1"}, 201)
    reply, _ = await mesh.read("create", "Patient", body=b'{"resourceType":"Patient"}')
    assert reply.status == 201
    assert mesh.records.requests_at_intent == [0]
    assert len(upstream.requests) == 1


@pytest.mark.requirement("PX-11")
async def test_px11_policy_is_asked_over_the_bus_about_included_kinds(mesh: Mesh, upstream: Any) -> None:
    rows = [{"resource": {"resourceType": k, "id": "1"}} for k in ("Observation", "Practitioner", "Claim")]
    upstream.answer({"resourceType": "Bundle", "type": "searchset", "entry": rows})
    mesh.kinds = {"Practitioner": Obligations()}
    reply, body = await mesh.read("search", "Observation")
    kinds = [e["resource"]["resourceType"] for e in msgspec.json.decode(body)["entry"]]
    assert kinds == ["Observation", "Practitioner", "OperationOutcome"]
    assert reply.withheld == 1


async def test_px6_a_bundle_of_twenty_megabytes_passes_through_byte_identical(mesh: Mesh, upstream: Any) -> None:
    resource = b'{"resourceType":"Observation","id":"o","valueString":"%s"}' % (b"x" * 20_000)
    entries = b",".join(b'{"resource":%s}' % resource for _ in range(1000))
    upstream.answer(b'{"resourceType":"Bundle","type":"searchset","entry":[%s]}' % entries)
    _, body = await mesh.read("search", "Observation")
    assert body.count(resource) == 1000


@pytest.mark.requirement("FG-32")
async def test_fg32_the_catalogue_is_asked_for_and_its_change_is_told(
    mesh: Mesh, upstream: Any, tmp_path: Path
) -> None:
    catalogue = await mesh.gateway.ask(ASK_CATALOGUE, Changed(version=""), Catalogue)
    assert {"store", "probe", "epic"} < {p.id for p in catalogue.platforms}
    heard = asyncio.Event()

    async def hear(changed: Changed) -> None:
        heard.set()

    await mesh.gateway.hear(EVENT_CATALOGUE_CHANGED, Changed, hear)
    (tmp_path / "probe.yaml").write_text(
        f"id: probe\nname: Renamed\ntype: sandbox\nbases: {{patient: '{upstream.base}'}}\n"
    )
    os.kill(os.getpid(), 1)  # SIGHUP
    async with asyncio.timeout(30):
        await heard.wait()
    again = await mesh.gateway.ask(ASK_CATALOGUE, Changed(version=""), Catalogue)
    assert {p.id: p.name for p in again.platforms}["probe"] == "Renamed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"WARDMESH_TOKEN_SEAL_KEY": "short"}, "WARDMESH_TOKEN_SEAL_KEY"),
        ({"WARDMESH_CURSOR_KEYS": "[]"}, "WARDMESH_CURSOR_KEYS"),
        ({"WARDMESH_CURSOR_KEYS": '["AAAA"]'}, "WARDMESH_CURSOR_KEYS"),
    ],
)
def test_wrong_keys_are_named_without_their_value(change: dict[str, str], message: str) -> None:
    with pytest.raises(BadSettings, match=message) as refused:
        settings.read({**ENVIRON, **change})
    assert "AAAA" not in str(refused.value) and "short" not in str(refused.value)
