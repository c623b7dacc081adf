"""From verified claims to a Principal: whatever the claims hold, only well-formed ids and configured roles come out."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardmesh_auth.identify import Roles, principal_of
from wardmesh_common.tokens import VerifiedToken

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["roles", "groups", "patient", "practitioner", "fhirUser", "realm_access"])


def token(claims: dict[str, Any]) -> VerifiedToken:
    return VerifiedToken(
        issuer="https://i.example",
        subject="s",
        principal_id="0:s",
        client_id="c",
        scopes=(),
        claims=claims,
        issued_at=0,
        expires_at=9e9,
        digest="00",
    )


@given(st.dictionaries(NAMES, JSON))
def test_any_claims_yield_a_principal_with_clean_ids_and_text_roles(claims: dict[str, Any]) -> None:
    found = principal_of(token(claims), Roles(("roles", "realm_access.roles", "groups"), {}))
    for own in (found.patient, found.practitioner):
        assert re.fullmatch(r"[A-Za-z0-9\-.]{0,64}", own)
    assert all(isinstance(role, str) and role for role in found.roles)
    assert len(found.roles) <= 64
    mapped = principal_of(token(claims), Roles(("roles", "groups"), {"known": ("Doctor",)}))
    assert set(mapped.roles) <= {"Doctor"}


@pytest.mark.parametrize(
    ("claims", "patient", "practitioner"),
    [
        ({"patient": "p1"}, "p1", ""),
        ({"patient": "Patient/p1"}, "p1", ""),
        ({"fhirUser": "Patient/p1"}, "p1", ""),
        ({"fhirUser": "https://ehr.example/fhir/Practitioner/d1"}, "", "d1"),
        ({"fhirUser": "Person/x"}, "", ""),
        ({"fhirUser": "p1"}, "", ""),
        ({"patient": "p1", "fhirUser": "Practitioner/d1"}, "p1", "d1"),
        ({"patient": "p1", "fhirUser": "Patient/p2"}, "p1", ""),
        ({"patient": "p1?_id=p2"}, "", ""),
        ({"patient": "p1\n"}, "", ""),
        ({"patient": ["p1"]}, "", ""),
        ({"patient": "x" * 65}, "", ""),
    ],
)
def test_own_record_and_own_practitioner_come_from_the_claims(
    claims: dict[str, Any], patient: str, practitioner: str
) -> None:
    found = principal_of(token(claims), Roles(("roles",), {}))
    assert (found.patient, found.practitioner) == (patient, practitioner)
