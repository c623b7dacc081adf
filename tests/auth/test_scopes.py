"""SMART scopes v1 and v2: what they cover, what they do not, and properties that hold for any scope list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardmesh_auth.scopes import allows, call_allowed, needed, parse, read_entry, smart
from wardmesh_common.contracts import Call, Entry
from wardmesh_common.vocabulary import Face, Interaction, Resource

I = Interaction  # noqa: E741
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
    assert allows((scope,), interaction, kind, instance=interaction in (I.READ, I.VREAD)) is covered


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
    assert not allows((scope,), I.READ, "Observation", instance=True)


@pytest.mark.requirement("X-6")
@given(INTERACTIONS, TYPES, st.lists(NOISE, max_size=4), st.booleans())
def test_without_smart_scopes_nothing_is_covered(interaction: I, kind: str, noise: list[str], instance: bool) -> None:
    covered = allows(tuple(noise), interaction, kind, instance=instance)
    assert covered is (interaction is I.CAPABILITIES)


@given(INTERACTIONS, TYPES, st.lists(SCOPES, max_size=4), SCOPES, st.booleans())
def test_more_scopes_never_cover_less(interaction: I, kind: str, scopes: list[str], more: str, instance: bool) -> None:
    if allows(tuple(scopes), interaction, kind, instance=instance):
        assert allows((*scopes, more), interaction, kind, instance=instance)


@given(INTERACTIONS, TYPES, st.lists(SCOPES, max_size=4), st.lists(NOISE, max_size=3), st.booleans())
def test_order_repetition_and_other_words_change_nothing(
    interaction: I, kind: str, scopes: list[str], noise: list[str], instance: bool
) -> None:
    plain = allows(tuple(scopes), interaction, kind, instance=instance)
    assert allows((*reversed(scopes), *noise, *scopes), interaction, kind, instance=instance) is plain


@given(st.lists(SCOPES, max_size=4), TYPES, st.sampled_from("cruds"))
def test_a_read_only_list_never_covers_a_write(scopes: list[str], kind: str, _: str) -> None:
    reading = tuple(s for s in scopes if not set(parse(s).letters) & set("cud"))  # type: ignore[union-attr]
    for interaction in (I.CREATE, I.UPDATE, I.PATCH, I.DELETE, I.BATCH, I.TRANSACTION):
        assert not allows(reading, interaction, kind)


@given(st.text(max_size=40))
def test_any_text_is_read_without_an_error(text: str) -> None:
    parse(text)
    read_entry(Entry(method=text[:5], url=text))


def test_operations_need_what_they_may_do() -> None:
    assert needed(I.OPERATION, operation="$validate") == "rs"
    assert needed(I.OPERATION, operation="$submit-data") == "cud"
    assert needed(I.HISTORY, instance=True) == "r"
    assert needed(I.HISTORY) == "s"
    assert not allows(("patient/Patient.rs",), I.OPERATION, "Patient", instance=True, operation="$everything")
    assert allows(("patient/*.rs",), I.OPERATION, "Patient", instance=True, operation="$everything")


def call(interaction: I, entries: tuple[Entry, ...] = (), query: str = "", kind: str = "") -> Call:
    return Call(
        id="c",
        reply_to="r",
        face=Face.FHIR,
        tool="t",
        interaction=interaction,
        platform="p",
        deadline=0,
        resource=Resource(type=kind),
        entries=entries,
        query=query,
    )


def test_a_bundle_is_judged_entry_by_entry() -> None:
    read = Entry(method="GET", url="Patient/1")
    search = Entry(method="GET", url="Observation?code=x")
    write = Entry(method="PUT", url="Observation/1")
    scopes = ("user/Patient.rs", "user/Observation.rs")
    assert call_allowed(scopes, call(I.BATCH, (read, search)))
    assert not call_allowed(scopes, call(I.BATCH, (read, write)))
    assert not call_allowed(scopes, call(I.BATCH)), "a bundle whose entries are unknown is the most it could be"
    assert not call_allowed(scopes, call(I.BATCH, (Entry(method="GET", url="Claim/1"),)))
    assert not call_allowed(scopes, call(I.BATCH, (Entry(method="BREW", url="Patient/1"),)))


@pytest.mark.parametrize(
    ("method", "url", "expected"),
    [
        ("GET", "Patient/1", (I.READ, "Patient", True, "", "")),
        ("GET", "Patient/1/_history/2", (I.VREAD, "Patient", True, "", "")),
        ("GET", "Patient/1/_history", (I.HISTORY, "Patient", True, "", "")),
        ("GET", "Patient/_history", (I.HISTORY, "Patient", False, "", "")),
        ("GET", "Patient?name=x", (I.SEARCH, "Patient", False, "", "name=x")),
        ("GET", "?_type=Patient", (I.SEARCH, "", False, "", "_type=Patient")),
        ("POST", "Patient/_search", (I.SEARCH, "Patient", False, "", "")),
        ("POST", "Patient", (I.CREATE, "Patient", False, "", "")),
        ("POST", "", (I.TRANSACTION, "", False, "", "")),
        ("PUT", "Patient?identifier=1", (I.UPDATE, "Patient", False, "", "identifier=1")),
        ("PATCH", "Patient/1", (I.PATCH, "Patient", True, "", "")),
        ("DELETE", "Patient/1", (I.DELETE, "Patient", True, "", "")),
        ("GET", "Patient/1/$everything", (I.OPERATION, "Patient", True, "$everything", "")),
        ("POST", "$submit-data", (I.OPERATION, "", False, "$submit-data", "")),
        ("GET", "metadata", (I.CAPABILITIES, "metadata", False, "", "")),
    ],
)
def test_an_entry_is_read_as_the_interaction_it_stands_for(method: str, url: str, expected: tuple[object, ...]) -> None:
    assert read_entry(Entry(method=method, url=url)) == expected


def test_a_constraint_in_the_callers_own_token_must_be_kept_by_the_search() -> None:
    scopes = ("user/Observation.rs?category=laboratory",)
    good = call(I.SEARCH, query="category=laboratory&patient=1", kind="Observation")
    for other in (
        call(I.SEARCH, query="patient=1", kind="Observation"),
        call(I.SEARCH, query="category=vital-signs", kind="Observation"),
        call(I.READ, kind="Observation"),
    ):
        assert not call_allowed(scopes, other, constraints_matter=True)
        assert call_allowed(scopes, other), "a platform enforces the constraints that it granted"
    assert call_allowed(scopes, good, constraints_matter=True)
