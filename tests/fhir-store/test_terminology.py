"""Tokens above, below, in and not in: against an oracle over small random hierarchies, and what is refused."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from store_stage import Fhir, issue_of, observation

PARENT = "http://hl7.org/fhir/concept-properties#parent"
CODES = tuple("abcdefghij")
SEEDS = range(12)
Resource = dict[str, Any]


class World:
    """One random code system, an Observation for each of its codes, for codes of another system and for none."""

    def __init__(self, fhir: Fhir, mark: str, seed: int) -> None:
        self.rng = random.Random(seed)
        self.fhir, self.mark = fhir, f"{mark}-{seed}"
        self.url, self.other = f"http://system.test/{self.mark}", f"urn:other:{self.mark}"
        self.above: dict[str, set[str]] = {code: set() for code in CODES}
        system = self._system()
        entries = [self._entry(system)]
        self.rows: dict[str, tuple[str, str]] = {}
        for number, coding in enumerate([*((self.url, code) for code in CODES), (self.other, "a"), ("", "")]):
            identity = f"{self.mark}-{number}"
            self.rows[identity] = coding
            codings = {"coding": [{"system": coding[0], "code": coding[1]}]} if coding[0] else {"text": "none"}
            meta = {"tag": [{"system": "urn:terms", "code": self.mark}]}
            entries.append(self._entry(observation(id=identity, meta=meta, code=codings)))
        self.store(entries)

    def _entry(self, resource: Resource) -> Resource:
        method, url = ("PUT", f"{resource['resourceType']}/{resource['id']}") if "id" in resource else ("POST", "")
        return {"resource": resource, "request": {"method": method, "url": url or resource["resourceType"]}}

    def store(self, entries: list[Resource]) -> None:
        answer = self.fhir.post("", {"resourceType": "Bundle", "type": "transaction", "entry": entries})
        assert answer.status_code == 200, answer.text

    def _system(self) -> Resource:
        """Half of the ties are nesting, half are properties; some codes have several parents, some ties go round."""
        concepts: dict[str, Resource] = {code: {"code": code} for code in CODES}
        top: list[Resource] = []
        for number, code in enumerate(CODES):
            before = CODES[:number]
            nested = self.rng.choice(before) if before and self.rng.random() < 0.5 else ""
            if nested:
                concepts[nested].setdefault("concept", []).append(concepts[code])
                self.above[code].add(nested)
            else:
                top.append(concepts[code])
            for parent in self.rng.sample(CODES, self.rng.choice([0, 0, 1, 2])):
                told = {"code": "isa", "valueCode": parent.upper()}  # case says nothing in this system
                concepts[code].setdefault("property", []).append(told)
                self.above[code].add(parent)
        declared = [{"code": "isa", "uri": PARENT, "type": "code"}]
        base = {"resourceType": "CodeSystem", "status": "active", "content": "complete", "url": self.url}
        return base | {"property": declared, "concept": top}

    def ancestors(self, code: str) -> set[str]:
        """Round by round, until a round brings nothing."""
        found = {code}
        while (more := found | {parent for one in found for parent in self.above[one]}) != found:
            found = more
        return found

    def descendants(self, code: str) -> set[str]:
        return {one for one in CODES if code in self.ancestors(one)}

    def asked(self, query: str) -> set[str]:
        return set(self.fhir.ids(f"Observation?_tag=urn:terms|{self.mark}&_count=100&{query}"))

    def with_codes(self, codes: set[tuple[str, str]]) -> set[str]:
        return {identity for identity, coding in self.rows.items() if coding in codes}


@pytest.fixture(scope="module", params=SEEDS)
def world(fhir: Fhir, request: pytest.FixtureRequest, run: str) -> World:
    return World(fhir, run, request.param)


@pytest.fixture(scope="module")
def run() -> Iterator[str]:
    yield f"t{random.SystemRandom().randrange(1 << 40):x}"


@pytest.mark.requirement("ST-45")
def test_above_and_below_follow_the_hierarchy_that_is_held(world: World) -> None:
    for code in CODES:
        value = f"{world.url}|{world.rng.choice([code, code.upper()])}"
        below = world.with_codes({(world.url, one) for one in world.descendants(code)})
        assert world.asked(f"code:below={value}") == below, (code, "below")
        above = world.with_codes({(world.url, one) for one in world.ancestors(code)})
        assert world.asked(f"code:above={value}") == above, (code, "above")
    some = world.rng.sample(CODES, 2)
    both = {(world.url, one) for code in some for one in world.descendants(code)}
    assert world.asked("code:below=" + ",".join(f"{world.url}|{code}" for code in some)) == world.with_codes(both)


def portion(world: World, sets: dict[str, set[tuple[str, str]]]) -> tuple[Resource, set[tuple[str, str]]]:
    """One random include or exclude, and what it means."""
    shape = world.rng.choice(["all", "list", "is-a", "descendent-of", "two", "sets", "both"])
    codes = set(CODES)
    made: Resource = {"system": world.url}
    if shape == "list":
        codes = set(world.rng.sample(CODES, 3))
        made["concept"] = [{"code": code} for code in sorted(codes)]
    if shape in ("is-a", "descendent-of", "two", "both"):
        for _ in range(2 if shape == "two" else 1):
            op, code = world.rng.choice(["is-a", "descendent-of"]), world.rng.choice(CODES)
            made.setdefault("filter", []).append({"property": "concept", "op": op, "value": code})
            codes &= world.descendants(code) - ({code} if op == "descendent-of" else set())
    meant = {(world.url, code) for code in codes}
    if shape in ("sets", "both") and sets:
        named = world.rng.sample(sorted(sets), min(len(sets), world.rng.choice([1, 2])))
        inner = set.intersection(*(sets[one] for one in named))
        if shape == "sets":
            return {"valueSet": named}, inner
        return made | {"valueSet": named}, meant & inner
    return made, meant


@pytest.mark.requirement("ST-45")
def test_in_and_not_in_follow_value_sets_that_are_held(world: World) -> None:
    sets: dict[str, set[tuple[str, str]]] = {}
    for number in range(5):
        url = f"http://set.test/{world.mark}/{number}"
        compose: Resource = {"include": []}
        meant: set[tuple[str, str]] = set()
        for _ in range(world.rng.choice([1, 2])):
            made, codes = portion(world, sets)
            compose["include"].append(made)
            meant |= codes
        if world.rng.random() < 0.3:
            compose["include"].append({"system": world.other, "concept": [{"code": "A"}, {"code": "never"}]})
            meant |= {(world.other, "a")}
        if world.rng.random() < 0.4:
            made, codes = portion(world, sets)
            compose["exclude"] = [made]
            meant -= codes
        body = {"resourceType": "ValueSet", "status": "active", "url": url, "version": "1", "compose": compose}
        identity = world.fhir.create(body)["id"]
        sets[url] = meant
        expected = world.with_codes(meant)
        named = world.rng.choice(
            [url, quote(f"{url}|1"), f"ValueSet/{identity}", world.fhir.url(f"ValueSet/{identity}")]
        )
        assert world.asked(f"code:in={named}") == expected, compose
        assert world.asked(f"code:not-in={named}") == set(world.rows) - expected, compose


@pytest.mark.requirement("ST-45")
def test_chains_and_criteria_ask_terminology_too(fhir: Fhir, mark: str) -> None:
    url = f"http://system.test/{mark}"
    valve: Resource = {"concept": [{"code": "valve"}]}
    concepts: list[Resource] = [{"code": "heart", **valve}, {"code": "lung"}]
    system = {"resourceType": "CodeSystem", "status": "active", "content": "complete", "url": url, "concept": concepts}
    held = fhir.create(system)
    subject = fhir.create({"resourceType": "Patient", "active": True})["id"]
    made = fhir.create(observation(f"Patient/{subject}", code={"coding": [{"system": url, "code": "valve"}]}))["id"]
    assert fhir.ids(f"Patient?_has:Observation:patient:code:below={url}|heart") == [subject]
    assert fhir.ids(f"Patient?_has:Observation:patient:code:below={url}|lung") == []
    report = {"resourceType": "DiagnosticReport", "status": "final", "code": {"text": "x"}}
    report = fhir.create(report | {"result": [{"reference": f"Observation/{made}"}]})["id"]
    assert fhir.ids(f"DiagnosticReport?result.code:below={url}|heart") == [report]
    assert fhir.ids(f"Patient/{subject}/Observation?code:below={url}|heart") == [made]
    criteria = f"code:below={url}|heart"
    again = fhir.post("Observation", observation(code={"text": "x"}), If_None_Exist=criteria)
    assert (again.status_code, again.json()["id"]) == (200, made)
    concepts = [{"code": "heart"}, {"code": "lung", **valve}]
    assert fhir.put(f"CodeSystem/{held['id']}", held | {"concept": concepts}).status_code == 200
    assert fhir.ids(f"Observation?{criteria}") == [], "the hierarchy of now"
    assert fhir.ids(f"Observation?code:below={url}|lung") == [made]
    fhir.call("DELETE", f"CodeSystem/{held['id']}")
    assert issue_of(fhir.get(f"Observation?code:below={url}|lung"))["code"] == "not-supported"


@pytest.mark.requirement("ST-45")
def test_case_and_editions_are_those_of_the_resource(fhir: Fhir, mark: str) -> None:
    url = f"http://system.test/{mark}"
    base = {"resourceType": "CodeSystem", "content": "complete", "url": url, "caseSensitive": True}
    nested = [{"code": "X", "concept": [{"code": "y"}]}, {"code": "Y"}]
    fhir.create(base | {"status": "active", "version": "1", "concept": nested})
    fhir.create(base | {"status": "draft", "version": "2", "concept": [{"code": "X"}, {"code": "y"}]})
    codes = {code: fhir.create(observation(code={"coding": [{"system": url, "code": code}]}))["id"] for code in "XyY"}
    assert set(fhir.ids(f"Observation?code:below={url}|X")) == {codes["X"], codes["y"]}, "active before newest"
    assert fhir.get(f"Observation?code:below={url}|x").status_code == 400
    listed = {
        "include": [{"system": url, "version": "2", "filter": [is_a("X")]}, {"system": url, "concept": [{"code": "Y"}]}]
    }
    identity = fhir.create({"resourceType": "ValueSet", "status": "active", "compose": listed})["id"]
    assert set(fhir.ids(f"Observation?code:in=ValueSet/{identity}")) == {codes["X"], codes["Y"]}
    whole = {"contains": [{"display": "all", "contains": [{"system": url, "code": "y"}]}]}
    expansion = {"timestamp": "2026-01-01", **whole}
    identity = fhir.create({"resourceType": "ValueSet", "status": "active", "expansion": expansion})["id"]
    assert fhir.ids(f"Observation?code:in=ValueSet/{identity}") == [codes["y"]]


def is_a(code: str, **more: str) -> Resource:
    return {"property": "concept", "op": "is-a", "value": code, **more}


@pytest.mark.requirement("ST-45")
def test_what_is_not_held_or_too_large_is_refused(fhir: Fhir, mark: str) -> None:
    base = f"http://system.test/{mark}"
    system = {"resourceType": "CodeSystem", "status": "active", "content": "complete", "concept": [{"code": "a"}]}
    fhir.create(system | {"url": f"{base}/part", "content": "fragment"})
    fhir.create(system | {"url": f"{base}/place", "hierarchyMeaning": "part-of"})
    fhir.create(system | {"url": f"{base}/large", "concept": [{"code": f"c{n}"} for n in range(10_001)]})
    fhir.create(system | {"url": f"{base}/whole"})
    for number in range(11):
        fhir.create(system | {"url": f"{base}/often", "version": str(number)})
    composes: dict[str, Resource] = {
        "unknown system": {"include": [{"system": f"{base}/unknown"}]},
        "unknown set": {"include": [{"valueSet": [f"{base}/unknown"]}]},
        "circle": {"include": [{"valueSet": [f"http://set.test/{mark}/circle"]}]},
        "too many": {"include": [{"system": f"{base}/large"}]},
        "part": {"include": [{"system": f"{base}/part"}]},
        "other filter": {"include": [{"system": f"{base}/whole", "filter": [is_a("a", op="regex")]}]},
        "other property": {"include": [{"system": f"{base}/whole", "filter": [is_a("a", property="kind")]}]},
        "unknown code": {"include": [{"system": f"{base}/whole", "filter": [is_a("z")]}]},
        "no system": {"include": [{"concept": [{"code": "a"}]}]},
        "other edition": {"include": [{"system": f"{base}/whole", "version": "9"}]},
        "active only": {"include": [{"system": f"{base}/whole"}], "inactive": False},
        "excluded": {"include": [{"system": f"{base}/whole"}], "exclude": [{"system": f"{base}/unknown"}]},
    }
    queries = [f"code:below={base}/{name}|a" for name in ("unknown", "part", "place", "often")]
    queries += [f"code:above={base}/whole|z", f"code:in={base}/unknown", f"code:in=ValueSet/{mark}"]
    for name, compose in composes.items():
        body = {"resourceType": "ValueSet", "status": "active", "compose": compose}
        body["url"] = f"http://set.test/{mark}/{name.replace(' ', '-')}"
        fhir.create(body)
        queries.append(f"code:in={body['url']}")
    empty = {"resourceType": "ValueSet", "status": "active"}
    partial = {"timestamp": "2026-01-01", "total": 5, "contains": [{"system": f"{base}/whole", "code": "a"}]}
    for body in (empty, empty | {"expansion": partial}):
        queries.append(f"code:in=ValueSet/{fhir.create(body)['id']}")
    many = ",".join(f"{base}/whole|a{n}" for n in range(25))
    queries.append(f"code:below={many}")
    for query in queries:
        for tried in (query, query.replace(":in=", ":not-in=")):
            answer = fhir.get(f"Observation?{tried}")
            assert answer.status_code == 400, tried
            issue = issue_of(answer)
            assert issue["code"] == "not-supported", tried
            assert mark not in answer.text, "the answer quotes the question"
    assert fhir.get("Observation?code:below=a").status_code == 400
    assert fhir.get(f"Observation?code:below={base}/whole|").status_code == 400
    assert fhir.get(f"Observation?never:below={base}/unknown|a").status_code == 200, "an unknown parameter, ignored"
