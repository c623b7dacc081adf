"""Search against a brute-force oracle that judges the same resources in plain Python."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_stage import Fhir

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SYSTEM = "urn:oracle"
CODES = ("a", "b", "c")
VALUES = ("1", "1.0", "1.5", "2", "10", "95", "100", "104.9")
DAYS = ("2023", "2024", "2024-02", "2024-02-29", "2024-03-01", "2024-02-29T12:00:00Z", "2025-01-01")
NAMES = ("Müller", "muller", "Mullen", "Ångström", "O'Neil", "neil")
COUNT = 60
Resource = dict[str, Any]


def observation(rng: random.Random, run: str, number: int) -> Resource:
    made: Resource = {
        "resourceType": "Observation",
        "id": f"{run}-{number}",
        "meta": {"tag": [{"system": SYSTEM, "code": run}]},
        "status": rng.choice(["final", "preliminary"]),
        "code": {"coding": [{"system": SYSTEM, "code": rng.choice(CODES)}]},
        "subject": {"reference": f"Patient/{run}-{rng.randrange(6)}"},
    }
    if rng.random() < 0.8:
        made["effectiveDateTime"] = rng.choice(DAYS)
    if rng.random() < 0.7:
        made["valueQuantity"] = {"value": Decimal(rng.choice(VALUES)), "system": SYSTEM, "code": "kg", "unit": "kilo"}
    if rng.random() < 0.4:
        made["component"] = [
            {
                "code": {"coding": [{"system": SYSTEM, "code": rng.choice(CODES)}]},
                "valueQuantity": {"value": Decimal(rng.choice(VALUES)), "system": SYSTEM, "code": "kg"},
            }
            for _ in range(2)
        ]
    return made


def patient(rng: random.Random, run: str, number: int) -> Resource:
    made: Resource = {
        "resourceType": "Patient",
        "id": f"{run}-{number}",
        "meta": {"tag": [{"system": SYSTEM, "code": run}]},
        "name": [{"family": rng.choice(NAMES)}],
    }
    if rng.random() < 0.6:
        made["gender"] = rng.choice(["male", "female"])
    return made


class World:
    """What was stored, and under which tag."""

    def __init__(self, run: str, patients: list[Resource], observations: list[Resource]) -> None:
        self.run = run
        self.patients = {one["id"]: one for one in patients}
        self.observations = observations


@pytest.fixture(scope="module")
def world(fhir: Fhir) -> World:
    run = "o" + uuid.uuid4().hex[:8]
    rng = random.Random(20260102)
    found = World(run, [patient(rng, run, n) for n in range(6)], [observation(rng, run, n) for n in range(COUNT)])
    entries = [
        {"resource": plain(one), "request": {"method": "PUT", "url": f"{one['resourceType']}/{one['id']}"}}
        for one in (*found.patients.values(), *found.observations)
    ]
    answer = fhir.post("", {"resourceType": "Bundle", "type": "transaction", "entry": entries})
    assert answer.status_code == 200, answer.text
    return found


def plain(value: Any) -> Any:
    """Decimals as JSON numbers: every value here is exact as a float too."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return float(value) if isinstance(value, Decimal) else value


def fold(text: str) -> str:
    table = str.maketrans("üÜÅåö", "uUAao")
    return text.translate(table).lower()


def span(text: str) -> tuple[datetime, datetime]:
    """Half-open, by the precision that was written."""
    if "T" in text:
        start = datetime.fromisoformat(text)
        return start, start + timedelta(seconds=1)
    parts = [int(part) for part in text.split("-")]
    start = datetime(parts[0], parts[1] if len(parts) > 1 else 1, parts[2] if len(parts) > 2 else 1, tzinfo=UTC)
    if len(parts) == 1:
        return start, start.replace(year=start.year + 1)
    if len(parts) == 2:
        return start, start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return start, start + timedelta(days=1)


def compare(prefix: str, low: Any, high: Any, start: Any, end: Any) -> bool:
    """R4 §3.1.1.4.7 on half-open ranges."""
    inside = low >= start and high <= end
    return {
        "eq": inside,
        "ne": not inside,
        "gt": high > end,
        "lt": low < start,
        "ge": high > end or inside,
        "le": low < start or inside,
        "sa": low >= end,
        "eb": high <= start,
    }[prefix]


def quantity(prefix: str, stored: Decimal, text: str) -> bool:
    """The stored number is exact; equality goes by the digits that were asked for."""
    number = Decimal(text)
    half = Decimal(5).scaleb(int(number.as_tuple().exponent) - 1)
    near = number - half <= stored < number + half
    return {
        "eq": near,
        "ne": not near,
        "gt": stored > number,
        "lt": stored < number,
        "ge": stored >= number,
        "le": stored <= number,
        "sa": stored > number,
        "eb": stored < number,
    }[prefix]


PREFIXES = st.sampled_from(["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb"])
Judge = Callable[[Resource, World], bool]


def code_of(resource: Resource) -> str:
    return resource["code"]["coding"][0]["code"]


@st.composite
def condition(draw: st.DrawFn) -> tuple[str, Judge]:
    """A parameter with its value, and what the oracle says to it."""
    kind = draw(st.sampled_from(["code", "not", "date", "value", "missing", "subject", "chain", "pair", "component"]))
    codes = draw(st.lists(st.sampled_from(CODES), min_size=1, max_size=2, unique=True))
    prefix, day, number = draw(PREFIXES), draw(st.sampled_from(DAYS)), draw(st.sampled_from(VALUES))
    name, who = draw(st.sampled_from(["mul", "MÜLLER", "o'n", "ang", "x"])), draw(st.integers(0, 6))
    listed = ",".join(f"{SYSTEM}|{code}" for code in codes)

    def valued(one: Resource) -> bool:
        return "valueQuantity" in one and quantity(prefix, one["valueQuantity"]["value"], number)

    def component(one: Resource) -> bool:
        return any(
            code_of(part) == codes[0] and quantity(prefix, part["valueQuantity"]["value"], number)
            for part in one.get("component", [])
        )

    def dated(one: Resource) -> bool:
        return "effectiveDateTime" in one and compare(prefix, *span(one["effectiveDateTime"]), *span(day))

    def family(one: Resource, world: World) -> bool:
        held = world.patients[one["subject"]["reference"].split("/")[1]]
        return fold(held["name"][0]["family"]).startswith(fold(name))

    table: dict[str, tuple[str, Judge]] = {
        "code": (f"code={listed}", lambda one, _: code_of(one) in codes),
        "not": (f"code:not={SYSTEM}|{codes[0]}", lambda one, _: code_of(one) != codes[0]),
        "date": (f"date={prefix}{day}", lambda one, _: dated(one)),
        "value": (f"value-quantity={prefix}{number}|{SYSTEM}|kg", lambda one, _: valued(one)),
        "missing": ("value-quantity:missing=true", lambda one, _: "valueQuantity" not in one),
        "subject": (
            f"subject=Patient/WHO-{who}",
            lambda one, world: one["subject"]["reference"] == f"Patient/{world.run}-{who}",
        ),
        "chain": (f"patient.family={name}", family),
        "pair": (
            f"code-value-quantity={SYSTEM}|{codes[0]}${prefix}{number}",
            lambda one, _: code_of(one) == codes[0] and valued(one),
        ),
        "component": (
            f"component-code-value-quantity={SYSTEM}|{codes[0]}${prefix}{number}",
            lambda one, _: component(one),
        ),
    }
    return table[kind]


def page_through(fhir: Fhir, query: str) -> list[str]:
    return [entry["resource"]["id"] for page in fhir.pages(query) for entry in page.get("entry", [])]


@pytest.mark.requirement("ST-46")
@SETTINGS
@given(conditions=st.lists(condition(), min_size=1, max_size=3))
def test_search_finds_what_the_oracle_finds(fhir: Fhir, world: World, conditions: list[tuple[str, Judge]]) -> None:
    asked = "&".join(text.replace("WHO", world.run) for text, _ in conditions)
    query = f"Observation?_tag={SYSTEM}|{world.run}&{asked}&_count=25".replace("Ü", "%C3%9C")
    expected = {one["id"] for one in world.observations if all(judge(one, world) for _, judge in conditions)}
    found = page_through(fhir, query)
    assert len(found) == len(set(found))
    assert set(found) == expected, asked


@pytest.mark.requirement("ST-50")
@SETTINGS
@given(
    keys=st.lists(st.sampled_from(["date", "value-quantity", "status", "_id"]), min_size=1, max_size=3, unique=True),
    downwards=st.lists(st.booleans(), min_size=3, max_size=3),
    count=st.sampled_from([7, 20, 60]),
)
def test_every_page_comes_in_the_order_of_the_oracle(
    fhir: Fhir, world: World, keys: list[str], downwards: list[bool], count: int
) -> None:
    def value(one: Resource, key: str, *, down: bool) -> Any:
        if key == "date":
            return span(one["effectiveDateTime"])[down].timestamp() if "effectiveDateTime" in one else None
        if key == "value-quantity":
            return one["valueQuantity"]["value"] if "valueQuantity" in one else None
        return one["id"] if key == "_id" else one["status"]

    rows = list(world.observations)
    for key, down in reversed(list(zip(keys, downwards, strict=False))):
        present = [one for one in rows if value(one, key, down=down) is not None]
        present.sort(key=lambda one, key=key, down=down: value(one, key, down=down), reverse=down)  # type: ignore[misc]
        if down:  # reverse keeps ties in order only when they are put back
            present = _stable_descending(rows, key, value)
        rows = present + [one for one in rows if value(one, key, down=down) is None]
    sort = ",".join(("-" if down else "") + key for key, down in zip(keys, downwards, strict=False))
    query = f"Observation?_tag={SYSTEM}|{world.run}&_sort={sort}&_count={count}"
    assert page_through(fhir, query) == [one["id"] for one in rows]


def _stable_descending(rows: list[Resource], key: str, value: Callable[..., Any]) -> list[Resource]:
    present = [(value(one, key, down=True), index, one) for index, one in enumerate(rows)]
    known = [item for item in present if item[0] is not None]
    known.sort(key=lambda item: item[1])
    known.sort(key=lambda item: item[0], reverse=True)
    return [item[2] for item in known]


@pytest.mark.requirement("ST-51")
@pytest.mark.parametrize("sort", ["", "&_sort=date", "&_sort=-value-quantity,status", "&_sort=-date,_id"])
def test_pages_read_backwards_are_the_pages_read_forwards(fhir: Fhir, world: World, sort: str) -> None:
    first = f"Observation?_tag={SYSTEM}|{world.run}&_count=9{sort}"
    forwards = list(fhir.pages(first))
    assert len(forwards) == 7
    ids = [[entry["resource"]["id"] for entry in page["entry"]] for page in forwards]
    backwards: list[list[str]] = []
    page = forwards[-1]
    while True:
        backwards.append([entry["resource"]["id"] for entry in page["entry"]])
        links = {link["relation"]: link["url"] for link in page["link"]}
        assert page["total"] == COUNT
        assert [entry["resource"]["id"] for entry in fhir.get(links["first"]).json()["entry"]] == ids[0]
        if "previous" not in links:
            break
        page = fhir.get(links["previous"]).json()
        assert "next" in {link["relation"] for link in page["link"]}
    assert backwards[::-1] == ids
