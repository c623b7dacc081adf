"""Signed session ids: read by every replica, useless to everybody else."""

from __future__ import annotations

import pytest

from gateway.mcp_stage import OTHER, Hub, result_of, stage
from wardmesh_gateway.mcp_sessions import LIFETIME_SECONDS, MAX_LENGTH, SessionIds, SessionUnknown

OLD, NEW = b"o" * 32, b"n" * 32
CLIENT = {"name": "Cursor", "version": "1.0.0"}


def test_a_session_carries_what_initialize_said() -> None:
    ids = SessionIds([OLD])
    session = ids.open(ids.mint("2025-06-18", CLIENT, {"roots": {"listChanged": True}}, "p"), "p")
    assert session.client_info == CLIENT
    assert session.version == "2025-06-18"
    assert session.capabilities == {"roots": {"listChanged": True}}


def test_only_known_capabilities_are_kept_and_null_means_not_supported() -> None:
    ids = SessionIds([OLD])
    declared = {"roots": None, "elicitation": {"url": {}, "form": None, "odd": {}}, "sampling": {}, "junk": {"x": 1}}
    session = ids.open(ids.mint("2025-11-25", CLIENT, declared, "p"), "p")
    assert session.capabilities == {"elicitation": {"url": {}}, "sampling": {}}


def test_a_client_cannot_make_the_id_longer_than_headers_allow() -> None:
    ids = SessionIds([OLD])
    greedy = {"name": "x" * 10_000, "version": "y" * 10_000}
    declared = {"extensions": {f"e{n}": {"a": "z" * 500} for n in range(500)}, "roots": {"listChanged": "w" * 9000}}
    value = ids.mint("2025-11-25", greedy, declared, "p")
    assert len(value) < MAX_LENGTH / 2
    assert all(0x21 <= ord(letter) <= 0x7E for letter in value)


@pytest.mark.parametrize("change", ["cut", "flip", "other key", "other principal", "expired", "junk", "long"])
def test_anything_not_exactly_ours_is_unknown(change: str) -> None:
    now = [1_000_000.0]
    ids = SessionIds([OLD], clock=lambda: now[0])
    value = ids.mint("2025-11-25", CLIENT, {}, "p")
    reader, principal = ids, "p"
    match change:
        case "cut":
            value = value[:-4]
        case "flip":
            value = value[:30] + ("A" if value[30] != "A" else "B") + value[31:]
        case "other key":
            reader = SessionIds([NEW])
        case "other principal":
            principal = "q"
        case "expired":
            now[0] += LIFETIME_SECONDS
        case "junk":
            value = "!!" + value
        case _:
            value = value * 20
    with pytest.raises(SessionUnknown):
        reader.open(value, principal)


def test_keys_rotate_without_losing_a_session() -> None:
    before, during, after = SessionIds([OLD, NEW]), SessionIds([NEW, OLD]), SessionIds([NEW])
    old = before.mint("2025-11-25", CLIENT, {}, "p")
    new = during.mint("2025-11-25", CLIENT, {}, "p")
    assert during.open(old, "p").client_info == before.open(new, "p").client_info == CLIENT
    assert after.open(new, "p").client_info == CLIENT
    with pytest.raises(SessionUnknown):
        after.open(old, "p")


def test_short_keys_are_refused_at_start() -> None:
    for keys in ([], [b"short"]):
        with pytest.raises(ValueError, match="key ring"):
            SessionIds(keys)


@pytest.mark.anyio
@pytest.mark.requirement("X-25", "C-8")
async def test_another_replica_knows_the_client_from_the_session_id() -> None:
    hub = Hub()
    async with stage(hub=hub, name="gateway-0a") as one, stage(hub=hub, name="gateway-0b") as two:
        session = await one.initialize(name="Cursor")
        await two.legacy("tools/call", {"name": "read", "arguments": {}}, **{"mcp-session-id": session})
        agent = two.door.calls[0][2].agent
    assert (agent.id, agent.source) == ("cursor-agent-v1.0.0", "session")
    assert agent.capabilities == ("roots",)


@pytest.mark.anyio
async def test_a_foreign_or_broken_session_is_404_and_no_substitute_for_a_token() -> None:
    async with stage() as s:
        session = await s.initialize()
        stolen = await s.legacy("tools/list", token=OTHER, **{"mcp-session-id": session})
        broken = await s.legacy("tools/list", **{"mcp-session-id": "made-up"})
        tokenless = await s.legacy("tools/list", token="", **{"mcp-session-id": session})
        fine = await s.legacy("tools/list", **{"mcp-session-id": session})
    assert [stolen.status_code, broken.status_code, tokenless.status_code] == [404, 404, 401]
    assert stolen.json()["id"] == 1
    assert result_of(fine)["tools"]


@pytest.mark.anyio
async def test_a_failed_initialize_mints_nothing() -> None:
    async with stage() as s:
        answer = await s.legacy("initialize", {"protocolVersion": "2025-11-25"})
    assert "error" in answer.json()
    assert "mcp-session-id" not in answer.headers
