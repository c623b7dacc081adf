"""The seal of a platform token fits one call, one platform and one principal."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardmesh_common.errors import Internal
from wardmesh_common.token_seal import open_token, parse_key, seal_token

KEY = os.urandom(32)
BOUND = {"call_id": "c1", "platform": "epic", "principal_id": "i:doctor|x"}


@pytest.mark.requirement("AR-6")
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_a_sealed_token_opens_for_its_own_call_and_shows_nothing(token: str) -> None:
    sealed = seal_token(KEY, token, **BOUND)
    assert open_token(KEY, sealed, **BOUND) == token
    assert len(token) < 4 or token.encode() not in sealed
    assert seal_token(KEY, token, **BOUND) != sealed


@pytest.mark.requirement("AR-6")
@pytest.mark.parametrize("change", [{"call_id": "c2"}, {"platform": "aetna"}, {"principal_id": "i:nurse"}])
def test_a_sealed_token_does_not_open_elsewhere(change: dict[str, str]) -> None:
    sealed = seal_token(KEY, "t0ken", **BOUND)
    for key, bound in ((KEY, BOUND | change), (os.urandom(32), BOUND)):
        with pytest.raises(Internal) as caught:
            open_token(key, sealed, **bound)
        assert "t0ken" not in str(caught.value)


def test_a_damaged_seal_does_not_open() -> None:
    sealed = seal_token(KEY, "t0ken", **BOUND)
    for damaged in (b"", sealed[:11], sealed[:-1], bytes([sealed[0] ^ 1]) + sealed[1:]):
        with pytest.raises(Internal):
            open_token(KEY, damaged, **BOUND)


def test_ids_that_could_be_confused_are_refused() -> None:
    with pytest.raises(Internal):
        seal_token(KEY, "t", call_id="c|epic", platform="x", principal_id="y")


def test_keys_are_read_strictly_and_never_quoted() -> None:
    assert parse_key("A" * 43) == bytes(32)
    for text in ("", "SECRETSECRET", "A" * 42, "A" * 44, "ä" * 43, "!" * 43):
        with pytest.raises(ValueError, match="a key must") as caught:
            parse_key(text)
        assert not text or text not in str(caught.value)
