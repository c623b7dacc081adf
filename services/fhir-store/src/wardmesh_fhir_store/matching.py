"""One search value against one index table: the SQL condition per parameter type."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from decimal import Decimal, InvalidOperation
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Text, and_, any_, false, literal, or_, true

from wardmesh_fhir_store.definitions import Definitions, Parameter
from wardmesh_fhir_store.faults import invalid, not_supported
from wardmesh_fhir_store.indexing import LONGEST_KEY, fit, fold, token_key, typed_key
from wardmesh_fhir_store.moments import LARGEST_EXPONENT, Span, implied_range, span_of
from wardmesh_fhir_store.query import split, unescape
from wardmesh_fhir_store.references import ID, target_of
from wardmesh_fhir_store.terminology.questions import ASKED, Answers, Question
from wardmesh_fhir_store.terminology.systems import Unanswerable

Condition = ColumnElement[bool]
PREFIXES = frozenset({"eq", "ne", "gt", "ge", "lt", "le", "sa", "eb", "ap"})
OTHER_KIND = {"identifier": "token", "text": "string"}  # modifiers that search another index
LAST_LETTER = "\U0010ffff"
NOTHING: Answers = {}
_NUMBER = re.compile(r"[+\-]?\d+(?:\.\d+)?(?:[eE][+\-]?\d{1,4})?", re.ASCII)
MODIFIERS: dict[str, frozenset[str]] = {
    "string": frozenset({"missing", "exact", "contains"}),
    "token": frozenset({"missing", "not", "text", "in", "not-in", "of-type", "above", "below"}),
    "reference": frozenset({"missing", "identifier"}),
    "date": frozenset({"missing"}),
    "number": frozenset({"missing"}),
    "quantity": frozenset({"missing"}),
    "uri": frozenset({"missing", "above", "below"}),
    "composite": frozenset({"missing"}),
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
    """Half-open ranges: the resource's [low, high) against the wanted one. `low < end` follows from the rest where
    it stands with it, and bounds the part of the index that is read."""
    start, end = wanted
    if prefix == "ap":
        slack = (end - start) * 0.1
        return and_(low < end + slack, high > start - slack)
    conditions: dict[str, Condition] = {
        "eq": and_(low >= start, low < end, high <= end),
        "ne": or_(low < start, high > end),
        "gt": high > end,
        "ge": or_(high > end, and_(low >= start, high <= end)),
        "lt": low < start,
        "le": or_(low < start, and_(low >= start, high <= end)),
        "sa": low >= end,
        "eb": and_(low < start, high <= start),
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


def one_of(column: ColumnElement[str], values: Iterable[str]) -> Condition:
    """As one array: a statement takes 32767 parameters, a value set may have more codes than that leaves room for."""
    return column == any_(literal(sorted(values), ARRAY(Text)))


class Matcher:
    """`bases` are our own FHIR bases, for absolute references; `answers` what terminology says to this request."""

    def __init__(self, definitions: Definitions, bases: tuple[str, ...], answers: Answers = NOTHING) -> None:
        self._definitions = definitions
        self._bases = bases
        self._answers = answers
        self._by_type: dict[str, Callable[[Any, Parameter, str, str], Condition]] = {
            "token": self._token,
            "string": self._string,
            "date": self._date,
            "number": self._number,
            "quantity": self._quantity,
            "reference": self._reference,
            "uri": self._uri,
        }

    def told(self, answers: Answers) -> Matcher:
        return Matcher(self._definitions, self._bases, answers)

    def condition(self, columns: Any, parameter: Parameter, modifier: str, value: str) -> Condition:
        """True for index rows that fit one value (no comma left in it); `columns` has those of the index table."""
        kind = OTHER_KIND.get(modifier, parameter.type)
        return self._by_type[kind](columns, parameter, modifier, value)

    def _token(self, c: Any, parameter: Parameter, modifier: str, value: str) -> Condition:
        if modifier == "of-type":
            return self._of_type(c, value)
        if modifier in ASKED:
            return self._told(c, Question(ASKED[modifier], value))
        parts = [unescape(part) for part in split(value, "|")]
        if len(parts) > 2:
            raise invalid("A token in the query has more than one bar.")
        code = parts[-1]
        if len(parts) == 2 and parts[0] and not code:
            return c.system == parts[0]
        if not code:
            raise invalid("A token in the query is empty.")
        if len(parts) == 1:
            keys = [token_key(code, exact=True), token_key(code, exact=False)]
            return c.key.in_(keys)
        exact = parts[0] in self._definitions.case_sensitive
        return and_(c.key == token_key(code, exact=exact), c.system == parts[0])

    def _of_type(self, c: Any, value: str) -> Condition:
        parts = [unescape(part) for part in split(value, "|")]
        if len(parts) != 3 or not all(parts):
            raise invalid(":of-type takes system|code|value.")
        return and_(c.system == parts[0], c.key == typed_key(parts[1], parts[2]))

    def _told(self, c: Any, question: Question) -> Condition:
        """One of the codes that terminology names."""
        if question.kind != "in" and len(split(question.value, "|")) != 2:
            raise invalid(":above and :below take system|code.")
        answer = self._answers.get(question)
        if answer is None:
            raise not_supported("Code systems and value sets are not asked here.")
        if isinstance(answer, Unanswerable):
            raise answer
        found: list[Condition] = [false()]
        for system, codes in answer.codes.items():
            exact = system in self._definitions.case_sensitive
            keys = one_of(c.key, (token_key(code, exact=exact) for code in codes))
            told_apart = one_of(c.code, codes) if system in answer.exact else true()
            found.append(and_(c.system == system, keys, told_apart))
        return or_(*found)

    def _string(self, c: Any, parameter: Parameter, modifier: str, value: str) -> Condition:
        text = unescape(value)
        wanted = fold(text)[:LONGEST_KEY]
        if modifier == "exact":
            return and_(c.folded == wanted, c.value == text)
        if modifier == "contains":
            return c.folded.contains(wanted, autoescape=True)
        return and_(c.folded >= wanted, c.folded < wanted + LAST_LETTER)

    def _date(self, c: Any, parameter: Parameter, modifier: str, value: str) -> Condition:
        prefix, text = prefixed(value)
        return range_condition(prefix, c.low, c.high, date_span(text))

    def _number(self, c: Any, parameter: Parameter, modifier: str, value: str) -> Condition:
        prefix, text = prefixed(value)
        return number_condition(prefix, c.low, c.high, text)

    def _quantity(self, c: Any, parameter: Parameter, modifier: str, value: str) -> Condition:
        parts = [unescape(part) for part in split(value, "|")]
        prefix, text = prefixed(parts[0])
        condition = number_condition(prefix, c.low, c.high, text)
        if len(parts) == 1:
            return condition
        if len(parts) != 3:
            raise invalid("A quantity in the query is number, number|system|code or number||unit.")
        system, code = fit(parts[1]), fit(parts[2])
        if not system:
            return and_(condition, or_(c.code == code, c.unit == code))
        return and_(condition, c.system == system, c.code == code)

    def _reference(self, c: Any, parameter: Parameter, modifier: str, value: str) -> Condition:
        text = unescape(value)
        if "/" not in text and ":" not in text and ID.fullmatch(text):
            kinds = [modifier] if modifier else sorted(self._definitions.resource_types & set(parameter.targets))
            return and_(c.target_id == text, c.target_type.in_(kinds or self._all()))
        target = target_of(text, self._bases)
        if target is None:
            raise invalid("A reference in the query is empty.")
        if target.url:
            return c.url == fit(target.url)
        if modifier and modifier != target.type:
            return false()
        here = and_(c.target_type == target.type, c.target_id == target.id)
        return and_(here, c.target_version == target.version) if target.version else here

    def _all(self) -> list[str]:
        return sorted(self._definitions.resource_types)

    def _uri(self, c: Any, parameter: Parameter, modifier: str, value: str) -> Condition:
        text = unescape(value)
        if modifier == "below":
            return or_(c.value == fit(text), c.value.startswith(text.rstrip("/") + "/", autoescape=True))
        if modifier == "above":
            stems = [text[: at.start()] for at in re.finditer("/", text)] + [text]
            return c.value.in_([fit(stem) for stem in stems])
        return c.value == fit(text)


def check_modifier(parameter: Parameter, modifier: str, types: frozenset[str]) -> None:
    """A modifier that is not supported is refused always (ST-45)."""
    if not modifier or modifier in MODIFIERS[parameter.type]:
        return
    if parameter.type == "reference" and modifier in types:
        return
    raise not_supported("A search modifier is not supported for this parameter.")
