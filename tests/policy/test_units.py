"""The small parts on their own: queries, entries, bodies, verdicts, the cache and the choice of a replica."""

from __future__ import annotations

import random
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.pdp_stage import call_of, caller
from wardmesh_common.contracts import Entry, encode
from wardmesh_common.errors import BadRequest
from wardmesh_common.pieces import piece_of
from wardmesh_common.questions import Load, PlatformFacts
from wardmesh_common.vocabulary import Agent, Grant, Interaction, Mask, Obligations, Principal, is_write
from wardmesh_policy.cache import CAPACITY, VerdictCache
from wardmesh_policy.checks import Caller, Check, caller_of, checks_of, only_sets, subject_of
from wardmesh_policy.parameters import read_query
from wardmesh_policy.performers import PerformerChoice
from wardmesh_policy.verdicts import Contradiction, Unreadable, Verdict, joined, masks_of, rule_of, verdict_of

STORE = PlatformFacts(id="store", name="s", type="t", auth_method="authorization_code")


# --- queries ---


@given(st.text(max_size=200))
def test_any_query_is_read_or_refused(query: str) -> None:
    asked = read_query(query)
    names = {"_has" if name.startswith("_has:") else name.split(".")[0].split(":")[0] for name, _ in asked.arguments}
    assert names <= set(asked.params)


NAME = st.from_regex(r"[a-z][a-z-]{0,12}", fullmatch=True)


@given(name=NAME, value=st.text(max_size=20), others=st.lists(NAME, max_size=4))
def test_a_parameter_is_found_however_it_is_written(name: str, value: str, others: list[str]) -> None:
    hidden = "".join(f"%{ord(letter):02x}" for letter in name)
    for written in (name, hidden, f"{name}:exact", f"{name}%3Aexact"):
        pairs = [*(f"{other}=1" for other in others), f"{written}={quote(value)}"]
        for joiner in ("&", ";"):
            assert name in read_query("x=1&" + joiner.join(pairs)).params
    assert name in read_query(f"_sort=a,-{name}").params


@pytest.mark.parametrize(
    ("query", "reached"),
    [
        ("subject:Patient.name=x", [("Patient", "name")]),
        ("subject.name=x", [("Patient", "name")]),
        ("subject:Patient.organization.name=x", [("Patient", "organization"), ("Organization", "name")]),
        ("patient._has:Group:member:code=x", [("Patient", "_has"), ("Group", "member"), ("Group", "code")]),
        (
            "subject:Patient%2E_has:Encounter:patient:_has:Person%3Alink%3Aaddress=x",
            [
                ("Patient", "_has"),
                ("Encounter", "patient"),
                ("Person", "link"),
                ("Person", "address"),
            ],
        ),
        ("actor.name=x", [("Patient", "name"), ("Practitioner", "name"), ("RelatedPerson", "name")]),
        ("_has:Observation:patient:code=x", [("Observation", "patient"), ("Observation", "code")]),
        (
            "_has:Observation:patient:_has:AuditEvent:entity:agent=x",
            [("Observation", "patient"), ("AuditEvent", "entity"), ("AuditEvent", "agent")],
        ),
        ("_sort=-patient.address", [("Patient", "address")]),
        ("code=x&date=ge2020", []),
    ],
)
def test_chains_name_the_kinds_they_reach(query: str, reached: list[tuple[str, str]]) -> None:
    assert list(read_query(query).reached) == reached


# --- entries ---

PART = st.sampled_from(
    ["Patient", "1", "_history", "_search", "$everything", "metadata", "", "..", "%24x", "*", "Observation"]
)
METHOD = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "get", "OPTIONS"])


@given(method=METHOD, parts=st.lists(PART, max_size=5), query=st.sampled_from(["", "?a=b", "?"]))
def test_an_entry_is_read_as_one_request_or_refused(method: str, parts: list[str], query: str) -> None:
    path = "/".join(parts)
    try:
        piece = piece_of(Entry(method=method, url=path + query))
    except BadRequest:
        return
    reads = method.upper() in ("GET", "HEAD")
    assert not (reads and is_write(piece.interaction, piece.operation))
    if not reads and piece.interaction is not Interaction.OPERATION:
        assert is_write(piece.interaction)
        assert piece.type
        assert piece.id or piece.query or method.upper() == "POST"
    # What was understood is the whole path: nothing of it is left over.
    rebuilt = [part for part in (piece.type, piece.id, piece.operation) if part]
    words = [part for part in parts if part in ("_history", "_search")] + (
        ["metadata"] if parts[:1] == ["metadata"] else []
    )
    versions = 1 if piece.interaction is Interaction.VREAD else 0
    assert len(rebuilt) + len(words) + versions == len([part for part in parts if part])


# --- calls ---


def test_the_body_names_its_patient_only_by_a_plain_reference() -> None:
    for reference, patient in (
        ("Patient/p1", "p1"),
        ("Patient/p1/_history/2", ""),
        ("http://elsewhere/Patient/p1", ""),
        ("Group/p1", ""),
        ("p1", ""),
        ("#p1", ""),
    ):
        body = msgspec.json.encode({"resourceType": "Observation", "subject": {"reference": reference}})
        assert subject_of(body) == patient, reference
    for junk in (b"", b"[]", b"{", b'{"subject": 1}', b'{"subject": {"reference": 7}}', b"\xff"):
        assert subject_of(junk) == ""


@given(st.binary(max_size=60))
def test_no_body_breaks_the_reading_of_it(body: bytes) -> None:
    assert subject_of(body) == ""
    assert only_sets(body) in (True, False)


def test_roles_have_one_order_and_reserved_names_count_for_nothing() -> None:
    one = caller_of(caller("patient Nurse Doctor Nurse guest anonymous"), None, home=True)
    assert one.roles == ("Doctor", "Nurse", "patient")
    assert caller_of(Principal(id="anonymous", roles=("Admin",)), None, home=True).roles == ("anonymous",)
    assert caller_of(Principal(id="x", roles=("anonymous",)), None, home=True).roles == ("guest",)


def test_a_conditional_write_asks_for_the_search_too() -> None:
    call = call_of("update", "Patient", query="identifier=x", headers={"if-none-exist": "name=y"})
    first, second = checks_of(call)
    assert (first.action, second.action) == ("update", "search")
    assert set(second.params) == {"identifier", "name"}


# --- verdicts ---


def test_masks_read_as_they_are_written() -> None:
    text = "\nPatient . keep a,b\nPatient identifier.value replace x y if system!=u\n* text remove\n"
    assert masks_of(text) == (
        Mask(type="Patient", path="", action="keep", value="a,b"),
        Mask(type="Patient", path="identifier.value", action="replace", value="x y", where="system!=u"),
        Mask(type="*", path="text", action="remove"),
    )
    for broken in ("Patient", "Patient name", "Patient name hide", "Patient . keep", "Patient name replace if a=b"):
        with pytest.raises(Unreadable):
            masks_of(broken)
    assert rule_of("resource.Patient.vdefault#staff_reads") == "Patient#staff_reads"


def test_of_several_rules_the_widest_counts_and_every_mask() -> None:
    own, whole = '{"masks": "* a remove", "compartment": "p"}', '{"masks": "* b remove"}'
    verdict = verdict_of(True, [("x.A.v#one", own), ("x.A.v#two", whole), ("x.A.v#no", '{"reason": "r"}')], missing="")
    assert verdict.obligations.compartment == ""
    assert [mask.path for mask in verdict.obligations.masks] == ["a", "b"]
    assert verdict_of(True, [("x.A.v#one", own)], missing="").obligations.compartment == "p"
    refused = verdict_of(False, [("x.A.v#no", '{"reason": "r"}')], missing="m")
    assert (refused.allowed, refused.reason, verdict_of(False, [], missing="m").reason) == (False, "r", "m")


def test_two_patients_in_one_call_are_a_contradiction() -> None:
    one, two = Obligations(compartment="p1"), Obligations(compartment="p2")
    assert joined([Obligations(), one, one]).compartment == "p1"
    with pytest.raises(Contradiction):
        joined([one, two])


# --- cache ---

CHECK = Check(kind="Patient", action="read")
WHO = Caller(id="i", roles=("r",))


def key(
    version: str = "1",
    who: Caller = WHO,
    check: Check = CHECK,
    platform: PlatformFacts = STORE,
    grant: Grant | None = None,
) -> object:
    return VerdictCache.key(version, who, check, platform, grant)


def test_everything_that_cerbos_is_told_is_in_the_key() -> None:
    """Walks the fields, so that a new one cannot be forgotten."""
    values = {str: "other", bool: True, tuple: ("other",)}
    keys = {key(), key(version="2"), key(grant=Grant(platform="store", scopes=("s",)))}
    expected = 3
    for name in Caller.__struct_fields__:
        changed = values[type(getattr(WHO, name))]
        keys.add(key(who=msgspec.structs.replace(WHO, **{name: changed})))
        expected += 1
    # The position in a bundle, and what is judged after Cerbos or never remembered, are no part of the question.
    for name in set(Check.__struct_fields__) - {"entry", "write", "probing"}:
        changed = (("a", "b"),) if name == "arguments" else values[type(getattr(CHECK, name))]
        keys.add(key(check=msgspec.structs.replace(CHECK, **{name: changed})))
        expected += 1
    for name in ("open", "writes"):
        keys.add(key(platform=msgspec.structs.replace(STORE, **{name: True})))
        expected += 1
    assert len(keys) == expected
    told = set(CHECK.attributes(STORE, None)) - {"body", "granted", "everywhere"}
    assert told <= {*Check.__struct_fields__, "open", "writes"}


def test_a_verdict_is_remembered_for_two_seconds_and_not_while_policies_change() -> None:
    now = [100.0]
    cache = VerdictCache(lambda: now[0])
    cache.put("k", Verdict(allowed=True))
    now[0] += 1.9
    assert cache.get("k") is not None
    now[0] += 0.2
    assert cache.get("k") is None
    cache.put("k", Verdict(allowed=True))
    cache.policies_changed()
    assert cache.get("k") is None
    cache.put("k", Verdict(allowed=True))
    assert cache.get("k") is None
    now[0] += 10
    for number in range(CAPACITY + 5):
        cache.put(number, Verdict(allowed=True))
    assert cache.get(0) is None
    assert cache.get(CAPACITY + 4) is not None


# --- the choice of a replica ---


def heard(choice: PerformerChoice, name: str, in_flight: int, latency_ms: float) -> None:
    choice.on_load(
        f"mesh.load.fhir-proxy.{name}", encode(Load(instance=name, in_flight=in_flight, latency_ms=latency_ms))
    )


def test_the_less_busy_of_two_is_chosen_and_old_reports_are_forgotten() -> None:
    now = [0.0]
    choice = PerformerChoice(lambda: now[0], random.Random(7))
    assert choice.choose() == ""
    heard(choice, "a", 0, 2.0)
    assert choice.choose() == "", "with one there is nothing to choose"
    heard(choice, "b", 0, 200.0)
    chosen = [choice.choose() for _ in range(60)]
    assert chosen.count("a") > 50
    assert "b" not in chosen
    assert [choice.choose() for _ in range(400)].count("b") > 2, "when enough waits at a, b is the better one"
    now[0] += 1.1
    assert choice.choose() == ""


def test_one_replica_makes_all_calls_to_a_platform_whose_rate_is_counted() -> None:
    """B-16: every chooser picks the same replica, and when one goes only its platforms move."""
    first, second = (PerformerChoice(lambda: 0.0, random.Random(seed)) for seed in (1, 2))
    for choice in (first, second):
        for name in ("a", "b", "c"):
            heard(choice, name, 0, 2.0)
    names = [f"platform-{number}" for number in range(60)]
    before = {name: first.choose(name) for name in names}
    assert before == {name: second.choose(name) for name in names}
    assert set(before.values()) == {"a", "b", "c"}
    third = PerformerChoice(lambda: 0.0)
    for name in ("a", "b"):
        heard(third, name, 0, 2.0)
    assert all(third.choose(name) == held for name, held in before.items() if held != "c")


def test_nobody_speaks_for_another_replica_and_noise_is_ignored() -> None:
    choice = PerformerChoice(lambda: 0.0, random.Random(7))
    heard(choice, "a", 0, 1.0)
    choice.on_load("mesh.load.fhir-proxy.a", b"\xff")
    choice.on_load("mesh.load.fhir-proxy.a", encode(Load(instance="b c", in_flight=0, latency_ms=1)))
    assert choice.choose() == ""


def test_the_agent_is_part_of_the_question() -> None:
    agent = Agent(id="a", capabilities=("roots",))
    found = caller_of(Principal(id="x", agent=agent), None, home=True)
    assert (found.agent, found.capabilities) == ("a", ("roots",))
