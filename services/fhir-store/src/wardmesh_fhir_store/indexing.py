"""Extracts the index rows of a resource from its decoded tree, one pass over its search parameters."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from msgspec import Struct

from wardmesh_fhir_store import moments
from wardmesh_fhir_store.composites import Composites, Rows
from wardmesh_fhir_store.definitions import Branch, Definitions, Parameter, parameter_key
from wardmesh_fhir_store.jsontext import Tree
from wardmesh_fhir_store.paths import Step, steps_of, walk
from wardmesh_fhir_store.references import target_of

LONGEST_KEY = 200  # characters of an index key; longer values are cut and told apart by their hash
NAME_PARTS = ("family", "given", "prefix", "suffix", "text")
ADDRESS_PARTS = ("line", "city", "district", "state", "postalCode", "country", "text")
TRUE_FALSE = "http://hl7.org/fhir/special-values"


def fold(text: str) -> str:
    """Case and accents removed, as string search wants it."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return " ".join("".join(c for c in decomposed if not unicodedata.combining(c)).split())


def fit(text: str) -> str:
    """A key that always fits a B-tree page."""
    if len(text) <= LONGEST_KEY:
        return text
    return text[:LONGEST_KEY] + "#" + hashlib.sha256(text.encode()).hexdigest()


def token_key(code: str, *, exact: bool) -> str:
    """`=` marks codes of case-sensitive systems, `~` the rest, folded."""
    return fit("=" + code) if exact else fit("~" + code.lower())


def typed_key(kind: str, value: str) -> str:
    """Of an identifier together with its type, for `:of-type`."""
    return fit(f"={kind}|{value}")


Extract = Callable[[str, Parameter, Branch, Any, Rows], None]


class Plan(Struct, frozen=True):
    """The paths of a type by the member they begin with: most are about members that a resource does not have."""

    composites: list[Parameter]
    presences: list[tuple[Parameter, Branch]]
    members: dict[str, list[tuple[Parameter, Branch, tuple[Step, ...], Extract]]]


class Indexer:
    """`bases` are our own FHIR bases: absolute references to them count as relative ones."""

    def __init__(self, definitions: Definitions, bases: tuple[str, ...]) -> None:
        self._definitions = definitions
        self._bases = bases
        self._plans: dict[str, Plan] = {}
        self._extract: dict[str, Extract] = {
            "token": self._token,
            "string": self._string,
            "date": self._date,
            "number": self._number,
            "quantity": self._quantity,
            "reference": self._reference,
            "uri": self._uri,
        }
        self._composites = Composites(definitions, self._values)

    def rows(self, kind: str, tree: Tree) -> Rows:
        """Index rows by table; each row once."""
        rows: Rows = {}
        plan = self._plans.get(kind)
        if plan is None:
            plan = self._plans[kind] = self._plan(kind)
        for parameter in plan.composites:
            self._composites.add(kind, parameter, tree, rows)
        for parameter, branch in plan.presences:
            self._presence(parameter, branch, tree, rows)
        for member in tree:
            for parameter, branch, steps, extract in plan.members.get(member, ()):
                for value in walk(tree, steps):
                    extract(kind, parameter, branch, value, rows)
        return {table: list(dict.fromkeys(found)) for table, found in rows.items()}

    def _plan(self, kind: str) -> Plan:
        plan = Plan([], [], {})
        for parameter in self._definitions.parameters[kind].values():
            if parameter.type == "composite":
                plan.composites.append(parameter)
                continue
            for branch in parameter.branches:
                if branch.kind == "presence":
                    plan.presences.append((parameter, branch))
                    continue
                steps = steps_of(branch.path)
                wanted = plan.members.setdefault(steps[0][0], [])
                wanted.append((parameter, branch, steps, self._extract[parameter.type]))
        return plan

    def _values(self, kind: str, parameter: Parameter, branch: Branch, value: Any) -> Rows:
        """What one value of a component would be indexed as."""
        rows: Rows = {}
        self._extract[parameter.type](kind, parameter, branch, value, rows)
        return rows

    def _add_token(self, key: int, system: Any, code: Any, rows: Rows) -> bool:
        system = system if isinstance(system, str) else ""
        if isinstance(code, str) and (code or system):
            exact = system in self._definitions.case_sensitive
            rows.setdefault("token", []).append((key, system, code, token_key(code, exact=exact)))
            return True
        return False

    def _presence(self, parameter: Parameter, branch: Branch, tree: Tree, rows: Rows) -> None:
        found = [tree[name] for name in (f"{branch.path}Boolean", f"{branch.path}DateTime") if name in tree]
        present = any(value is not False for value in found)
        self._add_token(parameter.key, TRUE_FALSE, "true" if present else "false", rows)

    def _token(self, kind: str, parameter: Parameter, branch: Branch, value: Any, rows: Rows) -> None:
        key = parameter.key
        if isinstance(value, bool):
            self._add_token(key, TRUE_FALSE, "true" if value else "false", rows)
        elif isinstance(value, str):
            self._add_token(key, branch.detail, value, rows)
        elif isinstance(value, dict):
            coded = [self._add_token(key, system, code, rows) for system, code in _coded(branch.kind, value)]
            self._beside(kind, parameter, branch, value, rows)
            if not any(coded):  # an element without a code is present all the same (:missing)
                rows.setdefault("token", []).append((key, "", "", ""))

    def _beside(self, kind: str, parameter: Parameter, branch: Branch, value: dict[str, Any], rows: Rows) -> None:
        """Rows of the modifiers `:text` and `:of-type`, under keys of their own."""
        owner = "Resource" if parameter.code in self._definitions.common else kind
        key = parameter_key(owner, f"{parameter.code}:text")
        for text in _wording(branch.kind, value):
            rows.setdefault("string", []).append((key, text, fold(text)[:LONGEST_KEY]))
        if branch.kind == "Identifier" and isinstance(value.get("value"), str) and isinstance(value.get("type"), dict):
            key = parameter_key(owner, f"{parameter.code}:of-type")
            for coding in _dicts(value["type"].get("coding")):
                system, code = _text(coding.get("system")), _text(coding.get("code"))
                if code:
                    rows.setdefault("token", []).append((key, system, code, typed_key(code, value["value"])))

    def _string(self, kind: str, parameter: Parameter, branch: Branch, value: Any, rows: Rows) -> None:
        if isinstance(value, str):
            texts = [value]
        elif isinstance(value, dict):
            parts = NAME_PARTS if branch.kind == "HumanName" else ADDRESS_PARTS
            texts = [t for part in parts for t in _list(value.get(part)) if isinstance(t, str)]
        else:
            return
        for text in texts:
            rows.setdefault("string", []).append((parameter.key, text, fold(text)[:LONGEST_KEY]))

    def _date(self, kind: str, parameter: Parameter, branch: Branch, value: Any, rows: Rows) -> None:
        if isinstance(value, str):
            span = moments.span_of(value)
        elif branch.kind == "Timing":
            span = moments.timing_span(value)
        else:
            span = moments.period_span(value)
        if span:
            rows.setdefault("date", []).append((parameter.key, *span))

    def _number(self, kind: str, parameter: Parameter, branch: Branch, value: Any, rows: Rows) -> None:
        if isinstance(value, dict):
            low, high = _bounds(value)
        else:
            low = high = moments.number_of(value)
        if low is not None or high is not None:
            rows.setdefault("number", []).append((parameter.key, low, high))

    def _quantity(self, kind: str, parameter: Parameter, branch: Branch, value: Any, rows: Rows) -> None:
        if not isinstance(value, dict):
            return
        sample = _dicts([value.get("low"), value.get("high"), value.get("origin"), value])[0]
        low, high = _bounds(value) if branch.kind == "Range" else _quantity_bounds(value)
        if low is None and high is None:
            return
        system, code, unit = (_text(sample.get(name)) for name in ("system", "code", "unit"))
        if branch.kind == "Money":
            system, code = "urn:iso:std:iso:4217", _text(value.get("currency"))
        rows.setdefault("quantity", []).append((parameter.key, low, high, fit(system), fit(code), fit(unit)))

    def _reference(self, kind: str, parameter: Parameter, branch: Branch, value: Any, rows: Rows) -> None:
        literal = value if isinstance(value, str) else value.get("reference") if isinstance(value, dict) else None
        identifier = value.get("identifier") if isinstance(value, dict) else None
        if isinstance(identifier, dict):
            key = parameter_key(kind, f"{parameter.code}:identifier")
            self._add_token(key, identifier.get("system"), identifier.get("value"), rows)
        target = target_of(literal, self._bases) if isinstance(literal, str) else None
        if target is None:  # contained, logical or only a display: present all the same (:missing)
            if not branch.detail:
                rows.setdefault("ref", []).append((parameter.key, "", "", "", ""))
            return
        named = target.type or (value.get("type") if isinstance(value, dict) else None)
        if branch.kind == "Reference" and branch.detail and named != branch.detail:
            return
        kind_of_target = target.type if target.type in self._definitions.resource_types else ""
        row = (parameter.key, kind_of_target, target.id, target.version, fit(target.url))
        rows.setdefault("ref", []).append(row)

    def _uri(self, kind: str, parameter: Parameter, branch: Branch, value: Any, rows: Rows) -> None:
        if isinstance(value, str):
            rows.setdefault("uri", []).append((parameter.key, fit(value)))


def _coded(kind: str, value: dict[str, Any]) -> list[tuple[Any, Any]]:
    """(system, code) pairs of the types that token parameters stand on."""
    if kind == "CodeableConcept":
        return [(coding.get("system"), coding.get("code", "")) for coding in _dicts(value.get("coding"))]
    if kind == "Coding":
        return [(value.get("system"), value.get("code", ""))]
    if kind == "Identifier":
        return [(value.get("system"), value.get("value", ""))]
    if kind == "ContactPoint":
        return [(value.get("use"), value.get("value"))]
    return []


def _wording(kind: str, value: dict[str, Any]) -> list[str]:
    """What a person reads of a coded value."""
    if kind == "Identifier":
        named = value.get("type")
        return [named["text"]] if isinstance(named, dict) and isinstance(named.get("text"), str) else []
    if kind == "Coding":
        return [value["display"]] if isinstance(value.get("display"), str) else []
    if kind != "CodeableConcept":
        return []
    found = [value.get("text"), *(coding.get("display") for coding in _dicts(value.get("coding")))]
    return [text for text in found if isinstance(text, str)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in _list(value) if isinstance(item, dict)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _bounds(value: dict[str, Any]) -> tuple[Decimal | None, Decimal | None]:
    """Range: a missing bound is open."""
    low, high = value.get("low"), value.get("high")
    return (
        moments.number_of(low.get("value")) if isinstance(low, dict) else None,
        moments.number_of(high.get("value")) if isinstance(high, dict) else None,
    )


def _quantity_bounds(value: dict[str, Any]) -> tuple[Decimal | None, Decimal | None]:
    """A comparator opens one side; SampledData is skipped, it has no single value."""
    number = moments.number_of(value.get("value"))
    if number is None:
        return None, None
    comparator = value.get("comparator", "")
    return (None if comparator[:1] == "<" else number), (None if comparator[:1] == ">" else number)
