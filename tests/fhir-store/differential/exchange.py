"""One side of the comparison: sends the steps to a FHIR base and brings each answer into a comparable form."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import httpx
from script import Step

FHIR_JSON = "application/fhir+json"
TIMEOUT = 60.0
_PLACE = re.compile(r"\{([^{}\"]+)\}")
# What each server sets as it pleases: compared by other means or not at all.
_OWN = {"versionId", "lastUpdated", "source"}
_MOST_PAGES = 20

Answer = dict[str, Any]


class Side:
    """Remembers ids that the server chose and versions in the order it told of them."""

    def __init__(self, base: str) -> None:
        self.base = base.rstrip("/")
        self.http = httpx.Client(timeout=TIMEOUT, headers={"Accept": FHIR_JSON, "Cache-Control": "no-cache"})
        self.ids: dict[str, str] = {}
        self.versions: dict[str, list[str]] = {}

    def close(self) -> None:
        self.http.close()

    def plant(self, resources: list[dict[str, Any]]) -> None:
        for resource in resources:
            answer = self._send("PUT", f"{resource['resourceType']}/{resource['id']}", json.dumps(resource), {})
            assert answer.status_code in {200, 201}, f"{self.base} refused the seed: {answer.text[:500]}"

    def perform(self, step: Step) -> Answer:
        answer = self._request(step)
        body = _decoded(answer)
        names = step.names if answer.status_code < 300 else ()
        self._learn(body, names)
        told: Answer = {"status": answer.status_code}
        if answer.status_code >= 400:
            return told | {"outcome": isinstance(body, dict) and body.get("resourceType") == "OperationOutcome"}
        if isinstance(body, dict):
            told |= self._told(body, step)
        if step.pages:
            told["pages"] = self._pages(body)
        return told

    def _request(self, step: Step) -> httpx.Response:
        kind, text = FHIR_JSON, step.text
        if step.body is not None:
            text = json.dumps(step.body)
        if step.json_patch is not None:
            kind, text = "application/json-patch+json", json.dumps(step.json_patch)
        if step.form:
            kind, text = "application/x-www-form-urlencoded", step.form
        headers = {name: self._filled(value) for name, value in step.headers.items()}
        return self._send(step.method, self._filled(step.path), self._filled(text), headers, kind)

    def _send(
        self, method: str, path: str, text: str, headers: dict[str, str], kind: str = FHIR_JSON
    ) -> httpx.Response:
        url = path if path.startswith("http") else f"{self.base}/{path}".rstrip("/").replace("/?", "?")
        typed = {"Content-Type": kind, **headers} if text else headers
        answer = self.http.request(method, url, content=text.encode(), headers=typed)
        if method in {"POST", "PUT", "PATCH"} and answer.status_code < 300:
            self._learn(_decoded(answer), ())
        return answer

    def _filled(self, text: str) -> str:
        """Placeholders become this side's ids and versions; a name nobody learned stays, and is found nowhere."""

        def place(found: re.Match[str]) -> str:
            word = found[1]
            if not word.startswith("v:"):
                return self.ids.get(word, found[0])
            _, resource, number = word.split(":")
            known = self.versions.get(resource, [])
            return known[int(number) - 1] if int(number) <= len(known) else "unknown"

        return _PLACE.sub(place, text)

    def _learn(self, body: Any, names: tuple[str, ...]) -> None:
        if not isinstance(body, dict):
            return
        if names and body.get("resourceType") == "Bundle":
            found = [_identity(entry) for entry in body.get("entry", [])]
            self.ids.update(zip(names, found, strict=True))
        elif names:
            self.ids[names[0]] = body["id"]
        version = body.get("meta", {}).get("versionId")
        if version and "id" in body and body["resourceType"] != "Bundle":
            known = self.versions.setdefault(f"{body['resourceType']}/{body['id']}", [])
            if version not in known:
                known.append(version)

    def _told(self, body: dict[str, Any], step: Step) -> Answer:
        if body.get("resourceType") != "Bundle":
            return {"outcome": True} if body.get("resourceType") == "OperationOutcome" else self._flat(body)
        entries = body.get("entry") or []
        told: Answer = {"type": body.get("type")}
        if body.get("type") == "searchset":
            return told | self._searchset(body, entries, step)
        if body.get("type") == "history":
            rows = [(entry.get("request") or {}).get("method", "-") for entry in entries]
            return told | {"total": body.get("total"), "methods": rows, "versions": [self._ordinal(e) for e in entries]}
        rows = [str((entry.get("response") or {}).get("status", ""))[:3] for entry in entries]
        return told | {"statuses": rows}

    def _searchset(self, body: dict[str, Any], entries: list[dict[str, Any]], step: Step) -> Answer:
        found: dict[str, list[str]] = {"match": [], "include": []}
        for entry in entries:
            mode = (entry.get("search") or {}).get("mode", "match")
            found.setdefault(mode, []).append(self._named(_key(entry)))
        found.pop("outcome", None)
        lists = {mode: names if step.ordered and mode == "match" else sorted(names) for mode, names in found.items()}
        told: Answer = {"total": body.get("total"), **lists}
        told["next"] = any(link.get("relation") == "next" for link in body.get("link") or [])
        if step.bodies:
            for entry in entries:
                told |= {f"{_key(entry)}:{path}": value for path, value in self._flat(entry["resource"]).items()}
        return told

    def _pages(self, body: Any) -> list[list[str]]:
        pages: list[list[str]] = []
        while isinstance(body, dict) and len(pages) < _MOST_PAGES:
            pages.append(sorted(_key(entry) for entry in body.get("entry") or []))
            links = [link["url"] for link in body.get("link") or [] if link["relation"] == "next"]
            body = _decoded(self._send("GET", links[0], "", {})) if links else None
        return pages

    def _flat(self, resource: dict[str, Any]) -> Answer:
        """Every leaf by its path; ids that the server chose under the name that the script gave them."""
        flat: Answer = {}

        def walk(node: Any, path: str) -> None:
            if isinstance(node, dict):
                for name, value in node.items():
                    if not (path == "meta" and name in _OWN):
                        walk(value, f"{path}.{name}" if path else name)
            elif isinstance(node, list):
                for index, value in enumerate(node):
                    walk(value, f"{path}[{index}]")
            else:
                flat[path] = self._named(node) if isinstance(node, str) else node

        walk(resource, "")
        return flat

    def _named(self, text: str) -> str:
        for name, identity in self.ids.items():
            text = text.replace(identity, f"{{{name}}}")
        return text.removeprefix(f"{self.base}/")

    def _ordinal(self, entry: dict[str, Any]) -> int | str:
        resource = entry.get("resource")
        if not resource:
            return "-"
        known = self.versions.get(f"{resource['resourceType']}/{resource['id']}", [])
        version = resource.get("meta", {}).get("versionId")
        return known.index(version) + 1 if version in known else "?"


def _decoded(answer: httpx.Response) -> Any:
    try:
        # Decimals keep their digits: 3.140 is not 3.14.
        return json.loads(answer.content, parse_float=lambda digits: f"{Decimal(digits)}") if answer.content else None
    except ValueError:
        return answer.text


def _key(entry: dict[str, Any]) -> str:
    resource = entry.get("resource") or {}
    return f"{resource.get('resourceType', '?')}/{resource.get('id', '?')}"


def _identity(entry: dict[str, Any]) -> str:
    location = (entry.get("response") or {}).get("location") or ""
    parts = location.split("/_history")[0].split("/")
    return parts[-1] if len(parts) > 1 else (entry.get("resource") or {}).get("id", "?")
