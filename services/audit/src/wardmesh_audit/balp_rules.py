"""Checks an AuditEvent against the rules of its BALP profile that a general FHIR validator does not know."""

from __future__ import annotations

from typing import Any, Final

from wardmesh_audit.balp_profiles import (
    CREATE,
    DELETE,
    DISCLOSURE,
    PROFILES,
    QUERY,
    READ,
    UPDATE,
    Coding,
    Row,
)

Json = dict[str, Any]
_ROWS: Final = {row.profile: row for row in (READ, QUERY, CREATE, UPDATE, DELETE, DISCLOSURE)}
_WRITERS: Final = ("AUT", "INF", "CST")
_NOT_IN_DELETE: Final = ("role", "name", "policy", "purposeOfUse", "altId", "location", "media")


def faults(event: Json) -> list[str]:
    """What is against the profile that the event claims; an event without profile must not be a success of one."""
    claimed = event.get("meta", {}).get("profile", [])
    if not claimed:
        return []
    name = str(claimed[0]).removeprefix(PROFILES)
    row = _ROWS.get(name.removeprefix("Patient"))
    if row is None:
        return [f"unknown profile {name}"]
    found = [*_fixed(event, row), *_agents(event, row), *_entities(event, row, patient=name != row.profile)]
    if row is DISCLOSURE:
        found += _source_is_observer(event)
    return found


def _fixed(event: Json, row: Row) -> list[str]:
    found: list[str] = []
    if event["type"]["code"] != row.type["code"]:
        found.append("type")
    if event["action"] != row.action:
        found.append("action")
    if event.get("outcome") != "0":
        found.append("outcome: the profiles cover success only")
    if row is DISCLOSURE and not any(each["code"] == "disclose" for each in event["subtype"]):
        found.append("subtype: disclose is missing")
    return found


def _slice(event: Json, wanted: Coding) -> list[Json]:
    codes = [(agent, agent["type"]["coding"][0]) for agent in event["agent"]]
    return [agent for agent, each in codes if (each["system"], each["code"]) == (wanted["system"], wanted["code"])]


def _agents(event: Json, row: Row) -> list[str]:
    found: list[str] = []
    for name, wanted in (("client", row.client), ("server", row.server)):
        agents = _slice(event, wanted)
        if len(agents) != 1:
            found.append(f"{name}: exactly one agent of type {wanted['code']}")
            continue
        found += [f"{name}.{part} is missing" for part in ("who", "network") if part not in agents[0]]
        if row is DELETE:
            found += [f"{name}.{part} is not allowed in Delete" for part in _NOT_IN_DELETE if part in agents[0]]
    return found + _user(event, row)


def _user(event: Json, row: Row) -> list[str]:
    machines = {row.client["code"], row.server["code"]}
    users = [agent for agent in event["agent"] if agent["type"]["coding"][0]["code"] not in machines]
    allowed = _WRITERS if row in (CREATE, UPDATE, DELETE) else ("IRCP",)
    found: list[str] = []
    for user in users:
        if user["type"]["coding"][0]["code"] not in allowed:
            found.append("user: type")
        if "network" in user:
            found.append("user: has a network")
        if user["requestor"] is not True:
            found.append("user: is not the requestor")
    if len(users) > 1:
        found.append("user: more than one")
    return found


def _entities(event: Json, row: Row, *, patient: bool) -> list[str]:
    entities: list[Json] = event.get("entity", [])
    roles = [entity.get("role", {}).get("code") for entity in entities]
    found: list[str] = []
    if row is QUERY:
        queries = [entity for entity in entities if entity.get("role", {}).get("code") == "24"]
        if len(queries) != 1 or "query" not in queries[0] or "what" in queries[0]:
            found.append("query: exactly one, with query and without what")
    elif sum(role in ("3", "4", "20") for role in roles) != 1:
        found.append("data: exactly one")
    if (patient or row is DISCLOSURE) and roles.count("1") != 1:
        found.append("patient: exactly one")
    if not patient and row is not DISCLOSURE and "1" in roles:
        found.append("patient: this profile has none")
    return found


def _source_is_observer(event: Json) -> list[str]:
    sources = _slice(event, DISCLOSURE.server)
    same = bool(sources) and sources[0].get("who") == event["source"]["observer"]
    return [] if same else ["source agent: is not the observer"]
