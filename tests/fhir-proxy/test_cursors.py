"""PX-2, B-15, X-2: page links are sealed for one caller, and only what we issued is followed."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from wardmesh_common.errors import BadRequest, Denied, Gone, NotFound, WardmeshError
from wardmesh_common.vocabulary import Grant, Obligations, Principal
from wardmesh_fhir_proxy.cursors import LIFETIME_SECONDS, Cursors

pytestmark = pytest.mark.anyio
OTHER_KEY = bytes(32)


def page(base: str, ids: list[str], following: str = "") -> dict[str, Any]:
    entries = [
        {"fullUrl": f"{base}/Observation/{i}", "resource": {"resourceType": "Observation", "id": i}} for i in ids
    ]
    links = [{"relation": "next", "url": following}] if following else []
    return {"resourceType": "Bundle", "type": "searchset", "link": links, "entry": entries}


async def first_cursor(bench: Any, **more: Any) -> str:
    base = bench.upstream.base
    bench.upstream.answer(page(base, ["o1"], f"{base}?_getpages=opaque&_getpagesoffset=1"))
    outcome = await bench.perform("search", "Observation", **more)
    link = next(x for x in msgspec.json.decode(outcome.body)["link"] if x["relation"] == "next")
    assert "opaque" not in link["url"]
    query = link["url"].partition("?")[2]
    bench.upstream.requests.clear()
    return query


@pytest.mark.requirement("PX-2", "X-2")
async def test_px2_a_client_can_page_to_the_end(bench: Any) -> None:
    base = bench.upstream.base
    pages = {"code=x": (["a", "b"], "p=2"), "p=2": (["c"], "p=3"), "p=3": (["d", "e"], "")}

    def respond(seen: Any) -> Any:
        ids, following = pages[seen.query]
        bench.upstream.answer(page(base, ids, f"{base}?{following}" if following else ""))
        return bench.upstream.respond(seen)

    found: list[str] = []
    query = "code=x"
    while query:
        bench.upstream.respond = respond
        bundle = msgspec.json.decode((await bench.perform("search", "Observation", query=query)).body)
        found += [entry["resource"]["id"] for entry in bundle["entry"]]
        links = {link["relation"]: link["url"] for link in bundle.get("link", [])}
        query = links.get("next", "").partition("?")[2]
    assert found == ["a", "b", "c", "d", "e"]


@pytest.mark.requirement("X-42")
async def test_x42_a_cursor_works_with_another_page_size(bench: Any) -> None:
    query = await first_cursor(bench, query="_count=5")
    outcome = await bench.perform("search", "Observation", query=f"_count=50&{query}")
    assert outcome.status == 200


@pytest.mark.requirement("PX-2")
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"principal": Principal(id="p2", roles=("Doctor",))}, NotFound),
        ({"principal": Principal(id="p1", session="other")}, NotFound),
        ({"principal": Principal(id="p1", scopes=("fhir.read",))}, Denied),
        ({"grant": Grant(platform="probe", scopes=("patient/Observation.r",))}, Denied),
        ({"obligations": Obligations(compartment="p9")}, Denied),
    ],
)
async def test_px2_a_cursor_of_another_caller_or_right_is_refused_without_an_upstream_call(
    bench: Any, change: dict[str, Any], error: type[WardmeshError]
) -> None:
    query = await first_cursor(bench)
    with pytest.raises(error):
        await bench.perform("search", "Observation", query=query, **change)
    assert bench.upstream.requests == []


@pytest.mark.requirement("PX-2")
async def test_px2_a_cursor_of_another_question_is_refused(bench: Any) -> None:
    query = await first_cursor(bench)
    for kind, interaction in (("Patient", "search"), ("Observation", "history")):
        with pytest.raises(BadRequest):
            await bench.perform(interaction, kind, query=query)
    assert bench.upstream.requests == []


@pytest.mark.requirement("PX-2")
async def test_px2_a_tampered_cursor_is_refused_at_every_byte(bench: Any) -> None:
    query = await first_cursor(bench)
    name, _, token = query.partition("=")
    # The last character may hold unused bits only, so it is left alone.
    for position in range(0, len(token) - 1, 7):
        other = "A" if token[position] != "A" else "B"
        with pytest.raises(BadRequest):
            await bench.perform(
                "search", "Observation", query=f"{name}={token[:position]}{other}{token[position + 1 :]}"
            )
    for text in ("", "x", "https://127.0.0.1/r4", "%00"):
        if text:
            with pytest.raises(BadRequest):
                await bench.perform("search", "Observation", query=f"{name}={text}")
    assert bench.upstream.requests == []


@pytest.mark.requirement("PX-2")
async def test_px2_an_expired_cursor_is_refused(bench: Any) -> None:
    call = bench.call("search", "Observation")
    token = bench.keys.issue(call, f"{bench.upstream.base}?p=2", now=time.time() - LIFETIME_SECONDS - 1)
    with pytest.raises(Gone):
        await bench.perform("search", "Observation", query=f"_cursor={token}")
    assert bench.upstream.requests == []


@pytest.mark.requirement("PX-2")
@pytest.mark.parametrize(
    "inner",
    ["http://169.254.169.254/latest/meta-data", "http://localhost:4222/r4/x", "file:///etc/passwd", "//evil/r4"],
)
async def test_px2_a_genuine_seal_around_another_host_is_refused(bench: Any, inner: str) -> None:
    token = bench.keys.issue(bench.call("search", "Observation"), inner)
    with pytest.raises(Denied):
        await bench.perform("search", "Observation", query=f"_cursor={token}")
    assert bench.upstream.requests == []


async def test_px2_a_page_outside_the_base_path_of_the_same_host_is_refused(bench: Any) -> None:
    host = bench.upstream.base.removesuffix("/r4")
    token = bench.keys.issue(bench.call("search", "Observation"), f"{host}/other-tenant/Observation")
    with pytest.raises(Denied):
        await bench.perform("search", "Observation", query=f"_cursor={token}")


@pytest.mark.requirement("PX-2")
async def test_px2_revoking_access_between_pages_stops_page_two(bench: Any) -> None:
    query = await first_cursor(bench)
    call = bench.call("search", "Observation", query=query)
    call.decision = msgspec.structs.replace(call.decision, allowed=False)
    with pytest.raises(Denied):
        await bench.send(call)
    assert bench.upstream.requests == []


async def test_keys_rotate_old_cursors_open_and_unknown_keys_do_not(bench: Any) -> None:
    call = bench.call("search", "Observation")
    old = Cursors([OTHER_KEY]).issue(call, "https://x.example/1")
    assert Cursors([bytes(range(32)), OTHER_KEY]).open(call, old).url == "https://x.example/1"
    with pytest.raises(BadRequest):
        Cursors([bytes(range(32))]).open(call, old)


async def test_the_self_link_of_a_later_page_is_a_cursor_of_ours(bench: Any) -> None:
    query = await first_cursor(bench)
    base = bench.upstream.base
    later = page(base, ["o2"])
    later["link"] = [{"relation": "self", "url": f"{base}/Observation?_cursor=theirs"}]
    bench.upstream.answer(later)
    bundle = msgspec.json.decode((await bench.perform("search", "Observation", query=query)).body)
    again = bundle["link"][0]["url"].partition("?")[2]
    assert "theirs" not in again
    repeated = msgspec.json.decode((await bench.perform("search", "Observation", query=again)).body)
    assert repeated["entry"] == bundle["entry"]
