"""One search value against one index table: the SQL condition per parameter type."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

from sqlalchemy import ColumnElement, FromClause, and_, false, or_

from wardmesh_fhir_store.definitions import Definitions, Parameter
from wardmesh_fhir_store.faults import invalid, not_supported
from wardmesh_fhir_store.indexing import LONGEST_KEY, fit, fold, token_key
from wardmesh_fhir_store.moments import LARGEST_EXPONENT, Span, implied_range, span_of
from wardmesh_fhir_store.query import split, unescape
from wardmesh_fhir_store.references import ID, target_of

Condition = ColumnElement[bool]
PREFIXES = frozenset({"eq", "ne", "gt", "ge", "lt", "le", "sa", "eb", "ap"})
LAST_LETTER = "\U0010ffff"
_NUMBER = re.compile(r"[+\-]?\d+(?:\.\d+)?(?:[eE][+\-]?\d{1,4})?", re.ASCII)
MODIFIERS: dict[str, frozenset[str]] = {
    "string": frozenset({"missing", "exact", "contains"}),
    "token": frozenset({"missing", "not"}),
    "reference": frozenset({"missing", "identifier"}),
    "date": frozenset({"missing"}),
    "number": frozenset({"missing"}),
    "quantity": frozenset({"missing"}),
    "uri": frozenset({"missing", "above", "below"}),
}


def prefixed(value: str) -> tuple[str, str]:
    """`ge2024` → (`ge`, `2024`)."""
    if value[:2] in PREFIXES:
        return value[:2], value[2:]
    return "eq", value


def date_span(text: str) -> Span:
    span = span_of(text)
    if span is None:
        raise invalid("A date in the query is not a FHIR date.")
    return span


def range_condition(prefix: str, low: ColumnElement[object], high: ColumnElement[object], wanted: Span) -> Condition:
    """Half-open ranges: the resource's [low, high) against the wanted one."""
    start, end = wanted
    if prefix == "ap":
        slack = (end - start) * 0.1
        return and_(low < end + slack, high > start - slack)
    conditions: dict[str, Condition] = {
        "eq": and_(low >= start, high <= end),
        "ne": or_(low < start, high > end),
        "gt": high > end,
        "ge": or_(high > end, and_(low >= start, high <= end)),
        "lt": low < start,
        "le": or_(low < start, and_(low >= start, high <= end)),
        "sa": low >= end,
        "eb": high <= start,
    }
    return conditions[prefix]


def number_condition(prefix: str, low: ColumnElement[object], high: ColumnElement[object], text: str) -> Condition:
    """Stored numbers are exact, or open on a side (NULL); what was asked has the precision of its digits."""
    if not _NUMBER.fullmatch(text):
        raise invalid("A number in the query is not a number.")
    try:
        number = Decimal(text)
        start, end = implied_range(text)
    except InvalidOperation:
        raise invalid("A number in the query is not a number.") from None
    if abs(number.adjusted()) > LARGEST_EXPONENT:
        raise invalid("A number in the query is out of range.")
    slack = abs(number) / 10
    conditions: dict[str, Condition] = {
        "eq": and_(low >= start, high < end),
        "ne": or_(low < start, high >= end, low.is_(None), high.is_(None)),
        "gt": or_(high > number, high.is_(None)),
        "ge": or_(high >= number, high.is_(None)),
        "lt": or_(low < number, low.is_(None)),
        "le": or_(low <= number, low.is_(None)),
        "sa": low > number,
        "eb": high < number,
        "ap": and_(or_(low <= number + slack, low.is_(None)), or_(high >= number - slack, high.is_(None))),
    }
    return conditions[prefix]


class Matcher:
    """`bases` are our own FHIR bases, for absolute references."""

    def __init__(self, definitions: Definitions, bases: tuple[str, ...]) -> None:
        self._definitions = definitions
        self._bases = bases
        self._by_type: dict[str, Callable[[FromClause, Parameter, str, str], Condition]] = {
            "token": self._token,
            "string": self._string,
            "date": self._date,
            "number": self._number,
            "quantity": self._quantity,
            "reference": self._reference,
            "uri": self._uri,
        }

    def condition(self, table: FromClause, parameter: Parameter, modifier: str, value: str) -> Condition:
        """True for index rows that fit one value (no comma left in it)."""
        kind = "token" if modifier == "identifier" else parameter.type
        return self._by_type[kind](table, parameter, modifier, value)

    def _token(self, table: FromClause, parameter: Parameter, modifier: str, value: str) -> Condition:
        parts = [unescape(part) for part in split(value, "|")]
        if len(parts) > 2:
            raise invalid("A token in the query has more than one bar.")
        code = parts[-1]
        if len(parts) == 2 and parts[0] and not code:
            return table.c.system == parts[0]
        if not code:
            raise invalid("A token in the query is empty.")
        if len(parts) == 1:
            keys = [token_key(code, exact=True), token_key(code, exact=False)]
            return table.c.key.in_(keys)
        exact = parts[0] in self._definitions.case_sensitive
        return and_(table.c.key == token_key(code, exact=exact), table.c.system == parts[0])

    def _string(self, table: FromClause, parameter: Parameter, modifier: str, value: str) -> Condition:
        text = unescape(value)
        wanted = fold(text)[:LONGEST_KEY]
        if modifier == "exact":
            return and_(table.c.folded == wanted, table.c.value == text)
        if modifier == "contains":
            return table.c.folded.contains(wanted, autoescape=True)
        return and_(table.c.folded >= wanted, table.c.folded < wanted + LAST_LETTER)

    def _date(self, table: FromClause, parameter: Parameter, modifier: str, value: str) -> Condition:
        prefix, text = prefixed(value)
        return range_condition(prefix, table.c.low, table.c.high, date_span(text))

    def _number(self, table: FromClause, parameter: Parameter, modifier: str, value: str) -> Condition:
        prefix, text = prefixed(value)
        return number_condition(prefix, table.c.low, table.c.high, text)

    def _quantity(self, table: FromClause, parameter: Parameter, modifier: str, value: str) -> Condition:
        parts = [unescape(part) for part in split(value, "|")]
        prefix, text = prefixed(parts[0])
        condition = number_condition(prefix, table.c.low, table.c.high, text)
        if len(parts) == 1:
            return condition
        if len(parts) != 3:
            raise invalid("A quantity in the query is number, number|system|code or number||unit.")
        system, code = fit(parts[1]), fit(parts[2])
        if not system:
            return and_(condition, or_(table.c.code == code, table.c.unit == code))
        return and_(condition, table.c.system == system, table.c.code == code)

    def _reference(self, table: FromClause, parameter: Parameter, modifier: str, value: str) -> Condition:
        text = unescape(value)
        if "/" not in text and ":" not in text and ID.fullmatch(text):
            kinds = [modifier] if modifier else sorted(self._definitions.resource_types & set(parameter.targets))
            return and_(table.c.target_id == text, table.c.target_type.in_(kinds or self._all()))
        target = target_of(text, self._bases)
        if target is None:
            raise invalid("A reference in the query is empty.")
        if target.url:
            return table.c.url == fit(target.url)
        if modifier and modifier != target.type:
            return false()
        here = and_(table.c.target_type == target.type, table.c.target_id == target.id)
        return and_(here, table.c.target_version == target.version) if target.version else here

    def _all(self) -> list[str]:
        return sorted(self._definitions.resource_types)

    def _uri(self, table: FromClause, parameter: Parameter, modifier: str, value: str) -> Condition:
        text = unescape(value)
        if modifier == "below":
            return or_(table.c.value == fit(text), table.c.value.startswith(text.rstrip("/") + "/", autoescape=True))
        if modifier == "above":
            stems = [text[: at.start()] for at in re.finditer("/", text)] + [text]
            return table.c.value.in_([fit(stem) for stem in stems])
        return table.c.value == fit(text)


def check_modifier(parameter: Parameter, modifier: str, types: frozenset[str]) -> None:
    """A modifier that is not supported is refused always (ST-45)."""
    if not modifier or modifier in MODIFIERS[parameter.type]:
        return
    if parameter.type == "reference" and modifier in types:
        return
    raise not_supported("A search modifier is not supported for this parameter.")
