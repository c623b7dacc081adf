"""The audit trail of the SMART server's tools out of ledger events: three records per tool call (SM-8)."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

Json = dict[str, Any]

NO_CLIENT: Final = "FHIR client not available."
_TOOL = re.compile(r"fhir(Patient|Practitioner|Organization|Resource)(Create|Read|Update|Search|Delete)")
_MOST_OPEN = 100_000  # calls that are remembered: the events of one call lie close together


class SmedrecRecords:
    """Fed with the events of one log in order. A call has several events: one per patient, an intent before a write."""

    def __init__(self) -> None:
        self._told: OrderedDict[str, set[str]] = OrderedDict()

    def of(self, event: Mapping[str, Any], sealed: Mapping[str, Any] | None) -> list[Json]:
        """The records that this event adds. `sealed`: what was opened, for ids and search parameters."""
        data: Json = event["data"]
        request: Json = data.get("request") or {}
        found = _TOOL.fullmatch(str(request.get("route", "")))
        if found is None or "outcome" not in data:
            return []
        call = _Call(event, data, request, found, sealed or {})
        told = self._told.setdefault(str(request["id"]), set())
        if len(self._told) > _MOST_OPEN:
            self._told.popitem(last=False)
        made = [record for name, record in call.records().items() if name not in told]
        told.update(call.records())
        return made


class _Call:
    """One event of one tool call, in the words of SM-8."""

    def __init__(
        self, event: Mapping[str, Any], data: Json, request: Json, tool: re.Match[str], sealed: Mapping[str, Any]
    ) -> None:
        self._data, self._request, self._sealed = data, request, sealed
        self._tool, self._action = tool[0], tool[2].lower()
        self._time = str(event["time"])
        resource: Json = data.get("resource") or {}
        self._kind = str(resource.get("type", "")) if tool[1] == "Resource" else tool[1]

    def records(self) -> dict[str, Json]:
        """By what they are: the same of another event of this call is told once."""
        began = str(self._request.get("received", self._time))
        attempt = self._record(f"{self._tool}Attempt", "attempt", f"{self._tool} was called.", at=began)
        records = {"attempt": attempt, "decision": self._decision()}
        return records | ({"outcome": self._outcome()} if self._data.get("phase") != "intent" else {})

    def _decision(self) -> Json:
        policy: Json = self._data.get("policy") or {}
        allowed = policy.get("decision") == "allow"
        if allowed:
            said = f"Allowed by {policy.get('rule') or 'policy'}."
        else:
            said = str(policy.get("reason") or f"Not decided: {self._failure()}")
        return self._record(f"cerbos:{self._action}", "success" if allowed else "failure", said)

    def _outcome(self) -> Json:
        outcome: Json = self._data["outcome"]
        good = outcome["code"] == "success"
        record = self._record(
            self._tool, "success" if good else "failure", f"{self._tool} succeeded." if good else self._failure()
        )
        return record | ({"responseStatus": outcome["http"]} if "http" in outcome else {})

    def _failure(self) -> str:
        outcome: Json = self._data["outcome"]
        policy: Json = self._data.get("policy") or {}
        if not policy and outcome.get("http") == 401:
            return NO_CLIENT
        if policy.get("decision") == "deny":
            return f"Forbidden: {policy.get('reason') or 'not authorized'}"
        status = outcome.get("http", outcome["code"])
        return f"FHIR {self._kind} {self._action} failed: Status {status}"

    def _record(self, action: str, status: str, said: str, *, at: str = "") -> Json:
        record: Json = {
            "timestamp": at or self._time,
            "principalId": self._principal(),
            "action": action,
            "targetResourceType": self._kind,
            "targetResourceId": self._target(),
            "status": status,
            "outcomeDescription": said,
        }
        query = self._sealed.get("query")
        return record | ({"searchParams": _parameters(query)} if isinstance(query, str) else {})

    def _principal(self) -> str:
        actor: Json = self._data.get("actor") or {}
        person: Json = actor.get("on_behalf_of") or actor
        name = str(self._sealed.get("actor") or person.get("id") or "")
        return "anonymous" if name in ("", "unidentified") else name

    def _target(self) -> str | None:
        """None where there is no single one, and where it is sealed and was not opened."""
        asked = self._sealed.get("resource")
        made: list[str] = self._sealed.get("resources") or []
        if not isinstance(asked, str) and self._action == "create" and made:
            asked = made[0]
        return asked.partition("/")[2] if isinstance(asked, str) else None


def _parameters(query: str) -> Json:
    """A repeated parameter is a list, in its order (X-1)."""
    found: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}
