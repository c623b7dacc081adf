"""$validate: names the depth it reached and everything it did not evaluate (ST-59, §3)."""

from __future__ import annotations

import asyncio
from functools import cached_property

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.definitions.rules import Profiles, load_profiles, load_rules
from wardmesh_fhir_store.elements import Elements
from wardmesh_fhir_store.faults import DEPTH_EXTENSION, Extension, Fault, Issue, invalid, outcome_body
from wardmesh_fhir_store.invariants import Invariants
from wardmesh_fhir_store.jsontext import Tree, decode_object
from wardmesh_fhir_store.profiling import ProfileChecker, Report
from wardmesh_fhir_store.query import pairs_of
from wardmesh_fhir_store.reading import Reading
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.wire import Request, Response

MODES = frozenset({"", "create", "update", "delete", "profile"})
MOST_ISSUES = 100


class Asked(msgspec.Struct, frozen=True):
    """What the caller wants judged; no resource stands for the stored one."""

    resource: Tree | None
    mode: str = ""
    profile: str = ""


class Validating:
    """Invariants and profiles are read at the first call: most stores never need them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @cached_property
    def _elements(self) -> Elements:
        return Elements(self._store.definitions)

    @cached_property
    def _invariants(self) -> Invariants:
        return Invariants(self._elements, load_rules())

    @cached_property
    def _held(self) -> Profiles:
        return load_profiles()

    async def answer(self, request: Request, kind: str, identity: str) -> Response:
        """200 whenever something could be judged."""
        asked = _read(request)
        if asked.mode == "delete":
            return await self._deletable(kind, identity)
        tree = asked.resource or await self._stored(kind, identity)
        issues, depth = await asyncio.to_thread(self.judge, tree, kind, identity, asked)
        marks = (Extension(url=DEPTH_EXTENSION, value_code=depth),)
        return Response(body=outcome_body(issues, marks))

    def judge(self, tree: Tree, kind: str, identity: str, asked: Asked) -> tuple[list[Issue], str]:
        """Every depth builds on the one before it; a structural fault ends the judgement."""
        found = tree.get("resourceType")
        if kind and found != kind:
            return [_issue("The resource is of another type than the URL.", "invalid", str(kind))], "json"
        given = tree.get("id")
        if asked.mode == "create" and given is not None:
            note = "The server assigns the id of a new resource; the one given is ignored."
            issues = [_issue(note, "informational", f"{kind}.id", "information")]
        elif asked.mode == "update" and (given is None or (identity and given != identity)):
            issues = [_issue("The id of the resource is missing or differs from the URL.", "invalid", f"{kind}.id")]
        else:
            issues = list[Issue]()
        structural = self._store.validator.issues(tree)
        if structural:
            return issues + structural, "structural"
        verdict = self._invariants.judge(tree)
        issues += verdict.issues
        skipped = set(verdict.skipped)
        depth = "invariants"
        if asked.profile:
            depth = "profile-subset"
            issues += self._judge_profile(tree, asked.profile, skipped)
        else:
            issues += _declared(tree)
        issues += [
            _issue(f"Constraint {key} was not evaluated.", "not-supported", "", "information")
            for key in sorted(skipped)
        ]
        return _concluded(issues[:MOST_ISSUES], depth), depth

    def _judge_profile(self, tree: Tree, canonical: str, skipped: set[str]) -> list[Issue]:
        profile = self._held.find(canonical)
        if profile is None:
            return [_issue("The profile is not held here: the resource was not judged against it.", "not-found", "")]
        report: Report = ProfileChecker(self._elements, self._held).judge(tree, profile)
        skipped |= report.verdict.skipped
        issues = list(report.verdict.issues)
        issues += [_issue(f"Not evaluated: {note}.", "not-supported", "", "information") for note in report.unjudged]
        if report.absent:
            names = ", ".join(report.absent)
            issues.append(
                _issue(f"Must-support elements that are absent: {names}.", "informational", "", "information")
            )
        return issues

    async def _stored(self, kind: str, identity: str) -> Tree:
        if not identity:
            raise invalid("There is no resource to validate.")
        reading = Reading(self._store)

        async def work(connection: AsyncConnection) -> Response:
            return await reading.read(connection, Request("GET", ""), kind, identity)

        return decode_object((await self._store.database.read(work)).body)

    async def _deletable(self, kind: str, identity: str) -> Response:
        """Whether there is something to delete; who refers to it is checked by the delete itself."""
        if not identity:
            raise invalid("mode=delete is for an instance.")
        await self._stored(kind, identity)
        note = "The resource exists and can be asked to be deleted; references to it were not evaluated."
        marks = (Extension(url=DEPTH_EXTENSION, value_code="json"),)
        return Response(body=outcome_body([_issue(note, "informational", "", "information")], marks))


def _read(request: Request) -> Asked:
    named = dict(pairs_of(request.query))
    mode, profile = named.get("mode", ""), named.get("profile", "")
    if request.method != "POST" or not request.body:
        return _checked(Asked(None, mode, profile))
    tree = decode_object(request.body)
    if tree.get("resourceType") != "Parameters" or request.path.startswith("Parameters/"):
        return _checked(Asked(tree, mode, profile))
    resource: Tree | None = None
    parts = tree.get("parameter", [])
    for part in parts if isinstance(parts, list) else []:
        name = part.get("name") if isinstance(part, dict) else None
        if name == "resource" and isinstance(part.get("resource"), dict):
            resource = part["resource"]
        elif name == "mode":
            mode = str(part.get("valueCode", mode))
        elif name == "profile":
            profile = str(part.get("valueUri", part.get("valueCanonical", profile)))
    return _checked(Asked(resource, mode, profile))


def _checked(asked: Asked) -> Asked:
    if asked.mode not in MODES:
        raise Fault(400, "invalid", "mode takes create, update, delete or profile.")
    if asked.mode == "profile" and not asked.profile:
        raise invalid("mode=profile needs a profile.")
    return asked


def _declared(tree: Tree) -> list[Issue]:
    meta = tree.get("meta")
    if not isinstance(meta, dict) or not meta.get("profile"):
        return []
    note = "Declared profiles were not evaluated; name one with `profile` to have it judged."
    return [_issue(note, "not-supported", "", "information")]


def _concluded(issues: list[Issue], depth: str) -> list[Issue]:
    """Never a bare "valid": what was found nothing in is named."""
    if any(issue.severity in ("error", "fatal") for issue in issues):
        return issues
    note = f"No error was found at depth {depth}."
    return [_issue(note, "informational", "", "information"), *issues]


def _issue(text: str, code: str, where: str, severity: str = "error") -> Issue:
    return Issue(severity=severity, code=code, diagnostics=text, expression=(where,) if where else msgspec.UNSET)
