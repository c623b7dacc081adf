"""SMART scopes v1 and v2: what they cover, what they do not, and properties that hold for any scope list."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardmesh_auth.scope_needs import needed, needs_of, read_entry
from wardmesh_auth.scopes import granted, narrowed, parse, smart
from wardmesh_common.contracts import Call, Entry
from wardmesh_common.vocabulary import Face, Interaction, Resource

I = Interaction  # noqa: E741


def call(
    interaction: I,
    entries: tuple[Entry, ...] = (),
    query: str = "",
    kind: str = "",
    name: str = "",
    operation: str = "",
    **fields: Any,
) -> Call:
    return Call(
        id="c",
        reply_to="r",
        face=fields.pop("face", Face.FHIR),
        tool="t",
        interaction=interaction,
        platform="p",
        deadline=0,
        resource=Resource(type=kind, id=name),
        entries=entries,
        query=query,
        operation=operation,
        **fields,
    )


TYPES = st.sampled_from(["Patient", "Observation", "Claim"])
INTERACTIONS = st.sampled_from(list(Interaction))
SCOPES = st.builds(
    lambda c, t, letters: f"{c}/{t}.{letters}",
    st.sampled_from(["patient", "user", "system"]),
    st.sampled_from(["Patient", "Observation", "*"]),
    st.sampled_from(["read", "write", "*", "r", "s", "rs", "c", "u", "d", "cud", "cruds"]),
)
NOISE = st.sampled_from(["openid", "fhirUser", "launch/patient", "offline_access", "patient/", "x/Patient.r", ""])


@pytest.mark.parametrize(
    ("scope", "interaction", "kind", "covered"),
    [
        ("patient/Observation.read", I.READ, "Observation", True),
        ("patient/Observation.read", I.SEARCH, "Observation", True),
        ("patient/Observation.read", I.CREATE, "Observation", False),
        ("patient/Observation.read", I.READ, "Patient", False),
        ("user/Patient.*", I.DELETE, "Patient", True),
        ("user/Patient.write", I.UPDATE, "Patient", True),
        ("user/Patient.write", I.READ, "Patient", False),
        ("patient/*.read", I.SEARCH, "Claim", True),
        ("patient/Observation.rs", I.SEARCH, "Observation", True),
        ("patient/Observation.r", I.SEARCH, "Observation", False),
        ("patient/Observation.s", I.READ, "Observation", False),
        ("patient/Observation.rs", I.VREAD, "Observation", True),
        ("system/*.cruds", I.TRANSACTION, "", True),
        ("system/*.rs", I.TRANSACTION, "", False),
        ("patient/Observation.rs", I.SEARCH, "", False),  # the whole system is more than one type
        ("patient/*.rs", I.SEARCH, "", True),
        ("patient/Patient.cud", I.PATCH, "Patient", True),
        ("patient/Observation.rs?category=laboratory", I.SEARCH, "Observation", True),
        ("openid", I.CAPABILITIES, "", True),
    ],
)
def test_a_scope_covers_exactly_what_it_says(scope: str, interaction: I, kind: str, covered: bool) -> None:
    name = "1" if interaction in (I.READ, I.VREAD) else ""
    assert granted((scope,), call(interaction, kind=kind, name=name)) is covered


@pytest.mark.parametrize(
    "scope",
    [
        "patient/Observation.sr",
        "patient/Observation.",
        "patient/Observation",
        "patient/observation.rs",
        "Patient/Observation.rs",
        "patient/Obs*.rs",
        "patient/Observation.rs?",
        "patient/Observation.rsx",
        "patient/Observation.rs\n",
        " patient/Observation.rs",
        "agent/Observation.rs",
    ],
)
def test_a_malformed_scope_grants_nothing(scope: str) -> None:
    assert parse(scope) is None
    assert not smart((scope,))
    assert not granted((scope,), call(I.READ, kind="Observation", name="1"))


@pytest.mark.requirement("X-6")
@given(INTERACTIONS, TYPES, st.lists(NOISE, max_size=4), st.booleans())
def test_without_smart_scopes_nothing_is_covered(interaction: I, kind: str, noise: list[str], instance: bool) -> None:
    covered = granted(tuple(noise), call(interaction, kind=kind, name="1" * instance))
    assert covered is (interaction is I.CAPABILITIES)


@given(INTERACTIONS, TYPES, st.lists(SCOPES, max_size=4), SCOPES, st.booleans())
def test_more_scopes_never_cover_less(interaction: I, kind: str, scopes: list[str], more: str, instance: bool) -> None:
    asked = call(interaction, kind=kind, name="1" * instance)
    for covers in (granted, lambda scopes, call: narrowed(scopes, call, "p1")):
        if covers(tuple(scopes), asked):
            assert covers((*scopes, more), asked)


@given(INTERACTIONS, TYPES, st.lists(SCOPES, max_size=4), st.lists(NOISE, max_size=3), st.booleans())
def test_order_repetition_and_other_words_change_nothing(
    interaction: I, kind: str, scopes: list[str], noise: list[str], instance: bool
) -> None:
    asked = call(interaction, kind=kind, name="1" * instance)
    assert granted((*reversed(scopes), *noise, *scopes), asked) is granted(tuple(scopes), asked)


@given(st.lists(SCOPES, max_size=4), TYPES, st.sampled_from("cruds"))
def test_a_read_only_list_never_covers_a_write(scopes: list[str], kind: str, _: str) -> None:
    reading = tuple(s for s in scopes if not set(parse(s).letters) & set("cud"))  # type: ignore[union-attr]
    for interaction in (I.CREATE, I.UPDATE, I.PATCH, I.DELETE, I.BATCH, I.TRANSACTION):
        assert not granted(reading, call(interaction, kind=kind))


@given(st.text(max_size=40))
def test_any_text_is_read_without_an_error(text: str) -> None:
    parse(text)
    read_entry(Entry(method=text[:5], url=text))


def test_operations_need_what_they_may_do() -> None:
    assert needed(I.OPERATION, operation="$validate") == "rs"
    assert needed(I.OPERATION, operation="$submit-data") == "cud"
    assert needed(I.HISTORY, instance=True) == "r"
    assert needed(I.HISTORY) == "s"
    everything = call(I.OPERATION, kind="Patient", name="1", operation="$everything")
    assert not granted(("patient/Patient.rs",), everything)
    assert granted(("patient/*.rs",), everything)


def test_what_a_payer_is_asked_reads_the_coverage_and_for_an_authorization_the_person() -> None:
    def asked(operation: str, body: bytes = b'{"patient_id":"p1"}') -> Call:
        return call(I.OPERATION, kind="Coverage", name="c1", operation=operation, body=body)

    check = asked("$check-prior-auth")
    assert granted(("patient/Coverage.r", "patient/Patient.r"), check)
    assert not granted(("patient/Coverage.r",), check)
    assert not granted(("patient/Patient.cruds",), check)
    for operation in ("$questionnaire-package", "$coverage-rules"):
        assert granted(("user/Coverage.read",), asked(operation))
        assert not granted(("user/Patient.read",), asked(operation))
    assert narrowed(("patient/*.rs",), check, "p1")
    assert not narrowed(("patient/*.rs",), check, "p2")
    for body in (b"", b"{", b"[]", b'{"patient_id":""}'):
        assert not narrowed(("patient/*.rs",), asked("$check-prior-auth", body), "p1")
    assert not granted(("user/*.r",), call(I.OPERATION, kind="Basic", operation="$check-prior-auth"))


def test_a_bundle_is_judged_entry_by_entry() -> None:
    read = Entry(method="GET", url="Patient/1")
    search = Entry(method="GET", url="Observation?code=x")
    write = Entry(method="PUT", url="Observation/1")
    scopes = ("user/Patient.rs", "user/Observation.rs")
    assert granted(scopes, call(I.BATCH, (read, search)))
    assert not granted(scopes, call(I.BATCH, (read, write)))
    assert not granted(scopes, call(I.BATCH)), "a bundle whose entries are unknown is the most it could be"
    for entry in (
        Entry(method="GET", url="Claim/1"),
        Entry(method="BREW", url="Patient/1"),
        Entry(method="GET", url="Patient/1/Claim"),
        Entry(method="GET", url="Observation?_revinclude=Provenance:target"),
    ):
        assert not granted(scopes, call(I.BATCH, (read, entry)))


ENTRIES = st.builds(
    lambda method, url: Entry(method=method, url=url),
    st.sampled_from(["GET", "PUT", "POST", "PATCH", "DELETE"]),
    st.sampled_from(["Patient/1", "Observation", "Observation/2", "Claim?patient=1", "Patient/1/Observation", ""]),
)


@given(st.lists(SCOPES, max_size=4), st.lists(ENTRIES, min_size=1, max_size=4))
def test_a_bundle_is_covered_exactly_when_each_of_its_entries_is(scopes: list[str], entries: list[Entry]) -> None:
    alone = [granted(tuple(scopes), call(I.BATCH, (entry,))) for entry in entries]
    assert granted(tuple(scopes), call(I.TRANSACTION, tuple(entries))) is all(alone)


@pytest.mark.requirement("X-6")
@given(st.lists(SCOPES, max_size=4), INTERACTIONS, TYPES, st.booleans())
def test_the_face_a_call_came_through_changes_nothing(scopes: list[str], interaction: I, kind: str, one: bool) -> None:
    verdicts = {granted(tuple(scopes), call(interaction, kind=kind, name="1" * one, face=face)) for face in Face}
    assert len(verdicts) == 1


@given(st.lists(SCOPES, max_size=4), INTERACTIONS, TYPES, st.sampled_from(["", "patient=p1", "patient=p2"]))
def test_the_callers_own_scopes_never_cover_more_than_the_same_scopes_as_a_grant(
    scopes: list[str], interaction: I, kind: str, query: str
) -> None:
    asked = call(interaction, kind=kind, query=query)
    if narrowed(tuple(scopes), asked, "p1"):
        assert granted(tuple(scopes), asked)


@pytest.mark.parametrize(
    ("query", "needed_too"),
    [
        ("_include=Observation:subject:Patient", "Patient"),
        ("_include=Observation:patient", "Patient"),
        ("_include:iterate=Observation:performer:Practitioner", "Practitioner"),
        ("_revinclude=Provenance:target", "Provenance"),
        ("_include=*", "*"),
        ("subject:Patient.name=x", "Patient"),
        ("patient.identifier=x", "Patient"),
        ("_has:Provenance:target:agent=x", "Provenance"),
        ("_has:Encounter:subject:_has:Claim:encounter:use=x", "Claim"),
        ("_filter=code eq x", "*"),
    ],
)
def test_a_search_needs_a_right_on_every_type_it_reaches(query: str, needed_too: str) -> None:
    asked = call(I.SEARCH, kind="Observation", query=query)
    assert not granted(("user/Observation.rs",), asked)
    more = {need.type for need in needs_of(asked)} - {"Observation"}
    assert needed_too in more
    assert granted(("user/Observation.rs", *(f"user/{kind}.rs" for kind in more)), asked)


def test_a_type_that_a_query_leaves_open_needs_every_type_of_the_callers_own_token_only() -> None:
    asked = call(I.SEARCH, kind="Observation", query="_include=Observation:subject")
    assert granted(("user/Observation.rs",), asked), "the platform knows the type and enforces its own grant"
    assert not narrowed(("user/Observation.rs",), asked, "")
    assert narrowed(("user/*.rs",), asked, "")


def test_a_compartment_search_is_judged_by_its_members_and_a_system_search_by_the_types_it_names() -> None:
    members = call(I.SEARCH, kind="Patient", name="1", operation="Observation")
    assert granted(("patient/Observation.rs",), members)
    assert not granted(("patient/Patient.rs",), members)
    assert not granted(("patient/Patient.rs",), call(I.SEARCH, kind="Patient", name="1", operation="*"))
    named = call(I.SEARCH, query="_type=Patient,Observation")
    assert granted(("user/Patient.rs", "user/Observation.rs"), named)
    assert not granted(("user/Patient.rs",), named)


def test_a_conditional_write_needs_the_right_to_search_as_well() -> None:
    for asked in (
        call(I.UPDATE, kind="Patient", query="identifier=1"),
        call(I.CREATE, kind="Patient", headers={"if-none-exist": "identifier=1"}),
        call(I.BATCH, (Entry(method="POST", url="Patient", if_none_exist="identifier=1"),)),
        call(I.BATCH, (Entry(method="DELETE", url="Patient?identifier=1"),)),
    ):
        assert not granted(("user/Patient.cud",), asked)
        assert granted(("user/Patient.cuds",), asked)
    assert granted(("user/Patient.cud",), call(I.UPDATE, kind="Patient", name="1"))


@pytest.mark.parametrize(
    ("method", "url", "expected"),
    [
        ("GET", "Patient/1", (I.READ, "Patient", "1", "", "")),
        ("GET", "Patient/1/_history/2", (I.VREAD, "Patient", "1", "", "")),
        ("GET", "Patient/1/_history", (I.HISTORY, "Patient", "1", "", "")),
        ("GET", "Patient/_history", (I.HISTORY, "Patient", "", "", "")),
        ("GET", "Patient/1/Observation", (I.SEARCH, "Patient", "1", "Observation", "")),
        ("GET", "Patient?name=x", (I.SEARCH, "Patient", "", "", "name=x")),
        ("GET", "?_type=Patient", (I.SEARCH, "", "", "", "_type=Patient")),
        ("POST", "Patient/_search", (I.TRANSACTION, "", "", "", "")),
        ("POST", "Patient", (I.CREATE, "Patient", "", "", "")),
        ("POST", "", (I.TRANSACTION, "", "", "", "")),
        ("PUT", "Patient?identifier=1", (I.UPDATE, "Patient", "", "", "identifier=1")),
        ("PATCH", "Patient/1", (I.PATCH, "Patient", "1", "", "")),
        ("DELETE", "Patient/1", (I.DELETE, "Patient", "1", "", "")),
        ("GET", "Patient/1/$everything", (I.OPERATION, "Patient", "1", "$everything", "")),
        ("POST", "$submit-data", (I.OPERATION, "", "", "$submit-data", "")),
        ("GET", "metadata", (I.CAPABILITIES, "", "", "", "")),
    ],
)
def test_an_entry_is_read_as_the_interaction_it_stands_for(method: str, url: str, expected: tuple[str, ...]) -> None:
    piece = read_entry(Entry(method=method, url=url))
    assert (piece.interaction, piece.type, piece.id, piece.operation, piece.query) == expected


def test_a_constraint_in_the_callers_own_token_must_be_kept_by_the_search() -> None:
    scopes = ("user/Observation.rs?category=laboratory",)
    good = call(I.SEARCH, query="category=laboratory&patient=1", kind="Observation")
    for other in (
        call(I.SEARCH, query="patient=1", kind="Observation"),
        call(I.SEARCH, query="category=vital-signs", kind="Observation"),
        call(I.SEARCH, query="category=laboratory,vital-signs", kind="Observation"),
        call(I.SEARCH, query="category:not=laboratory", kind="Observation"),
        call(I.READ, kind="Observation", name="1"),
        call(I.BATCH, (Entry(method="GET", url="Observation?patient=1"),)),
    ):
        assert not narrowed(scopes, other, "")
        assert granted(scopes, other), "a platform enforces the constraints that it granted"
    assert narrowed(scopes, good, "")
    assert narrowed(scopes, call(I.SEARCH, kind="Observation", body=b"category=laboratory"), "")
    assert narrowed(scopes, call(I.BATCH, (Entry(method="GET", url="Observation?category=laboratory"),)), "")


def test_a_patient_scope_of_the_callers_own_token_holds_for_its_patient_only() -> None:
    scopes = ("patient/*.rs",)
    assert narrowed(scopes, call(I.READ, kind="Patient", name="p1"), "p1")
    assert narrowed(scopes, call(I.SEARCH, kind="Observation", query="patient=Patient/p1"), "p1")
    for other in (
        call(I.READ, kind="Patient", name="p2"),
        call(I.SEARCH, kind="Observation", query="patient=p2"),
        call(I.SEARCH, kind="Observation", query="patient=p1&patient=p2"),
        call(I.SEARCH, kind="Patient", name="p2", operation="Observation"),
    ):
        assert not narrowed(scopes, other, "p1")
        assert narrowed(("user/*.rs",), other, "p1")
    assert not narrowed(scopes, call(I.READ, kind="Patient", name="p1"), ""), "no patient, no patient scope"


def test_what_a_caller_names_as_a_type_never_reaches_a_challenge() -> None:
    asked = call(I.SEARCH, kind="Observation", query='_revinclude=Jane"Doe:x&_has:evil smith:a:b=1&_type=x')
    assert {need.type for need in needs_of(asked)} == {"Observation", "*"}
