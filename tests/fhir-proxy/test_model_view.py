"""B-1: answers for models are bounded, readable, and never silently cut."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from wardmesh_common.contracts import View
from wardmesh_fhir_proxy import model_view
from wardmesh_fhir_proxy.projection import project

pytestmark = pytest.mark.anyio


def observation(n: int, size: int) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"o{n}",
        "text": {"status": "generated", "div": "<div>" + "n" * 300 + "</div>"},
        "code": {"text": "Heart rate", "coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "note": [{"text": "x" * 60} for _ in range(size)],
    }


def serve(bench: Any, pages: list[list[dict[str, Any]]]) -> None:
    base = bench.upstream.base

    def respond(seen: Any) -> Any:
        number = int(seen.query.partition("p=")[2] or 0)
        links = [{"relation": "self", "url": f"{base}/Observation"}]
        if number + 1 < len(pages):
            links.append({"relation": "next", "url": f"{base}?p={number + 1}"})
        entries = [
            {"fullUrl": f"{base}/Observation/{r['id']}", "resource": r, "search": {"mode": "match"}}
            for r in pages[number]
        ]
        bench.upstream.answer(
            {"resourceType": "Bundle", "type": "searchset", "total": 99, "link": links, "entry": entries}
        )
        return bench.upstream.respond(seen)

    def always(seen: Any) -> Any:
        answer = respond(seen)
        bench.upstream.respond = always
        return answer

    bench.upstream.respond = always


async def walk(bench: Any, budget: int) -> list[str]:
    found: list[str] = []
    query = ""
    for _ in range(200):
        outcome = await bench.perform("search", "Observation", query=query, view=View(model=True, max_bytes=budget))
        assert len(outcome.body) <= budget
        document = msgspec.json.decode(outcome.body)
        ids = [e["resource"]["id"] for e in document.get("entry", [])]
        found += ids
        assert outcome.truncated == document.get("truncated", False)
        if outcome.truncated:
            assert document["omitted"]
        query = document.get("next", "").partition("?")[2]
        if not query:
            return found
    raise AssertionError("the pages never end")


@pytest.mark.parametrize("seed", range(12))
async def test_b1_following_next_yields_exactly_the_full_set_at_any_budget(bench: Any, seed: int) -> None:
    chance = random.Random(seed)
    count = chance.randrange(1, 40)
    rows = [observation(n, chance.choice([0, 1, 5, 60])) for n in range(count)]
    cuts = sorted(chance.sample(range(count), min(count - 1, 3))) if count > 1 else []
    pages = [rows[a:b] for a, b in zip([0, *cuts], [*cuts, count], strict=True)]
    serve(bench, pages)
    assert await walk(bench, chance.randrange(3_000, 30_000)) == [row["id"] for row in rows]


async def test_b1_five_hundred_observations_never_exceed_the_budget(bench: Any) -> None:
    rows = [observation(n, 3) for n in range(500)]
    serve(bench, [rows[n : n + 100] for n in range(0, 500, 100)])
    assert len(set(await walk(bench, 16_000))) == 500


async def test_b1_codes_have_displays_and_noise_is_gone(bench: Any) -> None:
    bench.upstream.answer({**observation(1, 0), "meta": {"versionId": "1", "profile": ["http://p"]}})
    outcome = await bench.perform("read", "Observation", "o1", view=View(model=True, max_bytes=10_000))
    document = msgspec.json.decode(outcome.body)
    assert "text" not in document
    assert document["meta"] == {"versionId": "1"}
    assert document["code"]["coding"][0]["display"] == "Heart rate"
    assert not outcome.truncated and "truncated" not in document


def test_b1_narrative_that_says_more_than_the_elements_stays() -> None:
    text = {"status": "additional", "div": "<div>more</div>"}
    assert project({"resourceType": "Composition", "text": dict(text)})["text"] == text


@pytest.mark.parametrize("budget", [700, 1_000, 3_000, 9_000])
async def test_b1_a_single_large_resource_is_shortened_and_says_what_is_missing(bench: Any, budget: int) -> None:
    claim = {
        "resourceType": "Claim",
        "id": "c1",
        "status": "active",
        "item": [{"sequence": n, "note": "y" * 40} for n in range(200)],
        "supportingInfo": [{"sequence": n} for n in range(50)],
        "attachment": {"data": "A" * 5000},
    }
    bench.upstream.answer(claim)
    outcome = await bench.perform("read", "Claim", "c1", view=View(model=True, max_bytes=budget))
    document = msgspec.json.decode(outcome.body)
    assert len(outcome.body) <= budget
    assert outcome.truncated and document["truncated"]
    assert (document["resourceType"], document["id"], document["status"]) == ("Claim", "c1", "active")
    left = len(document.get("item", []))
    named = {line.split(":")[0]: line for line in document["omitted"]}
    if left < 200:
        assert f"{200 - left} items" in named["item"]
    assert document.get("item", [])[:1] == claim["item"][: min(1, left)]


def test_b1_decimals_stay_exact_in_the_model_view() -> None:
    body, truncated = model_view.single(b'{"resourceType":"Observation","id":"o","valueQuantity":{"value":1.00}}', 0)
    assert b"1.00" in body and not truncated
