"""Reads a search: which rows, in which order, how much of them, and what could not be applied."""

from __future__ import annotations

from msgspec import Struct
from sqlalchemy import ColumnElement, FromClause, and_, func, not_, select

from wardmesh_fhir_store import tables
from wardmesh_fhir_store.conditions import Condition, ConditionBuilder, UnknownParameter, index_table
from wardmesh_fhir_store.definitions import Definitions
from wardmesh_fhir_store.faults import invalid, not_supported
from wardmesh_fhir_store.query import Pair
from wardmesh_fhir_store.slicing import View, view_of
from wardmesh_fhir_store.terminology.questions import Answers

DEFAULT_COUNT = 20
LARGEST_COUNT = 1000
MOST_SORT_KEYS = 5
REFUSED = frozenset({"_filter", "_query", "_contained", "_containedType", "_score", "_text", "_content"})
PASSIVE = frozenset({"_format", "_pretty"})  # obeyed elsewhere
INCLUDES = ("_include", "_revinclude")
# Sorting takes the lowest value upwards and the highest downwards (ST-50).
SORT_COLUMNS: dict[str, tuple[str, str]] = {
    "string": ("folded", "folded"),
    "token": ("code", "code"),
    "date": ("low", "high"),
    "number": ("low", "high"),
    "quantity": ("low", "high"),
    "reference": ("target_id", "target_id"),
    "uri": ("value", "value"),
}
CASTS = {"date": "date", "number": "number", "quantity": "number"}


class SortKey(Struct, frozen=True):
    column: ColumnElement[object]
    descending: bool
    cast: str = "text"


class Include(Struct, frozen=True):
    """`source` and `parameter` may be `*`; `reverse` is _revinclude."""

    source: str
    parameter: str
    target: str
    reverse: bool
    iterate: bool


class Search(Struct, kw_only=True):
    """A search that was understood."""

    row: FromClause
    kinds: tuple[str, ...] = ()
    conditions: list[Condition] = []
    sort: list[SortKey] = []
    includes: list[Include] = []
    count: int = DEFAULT_COUNT
    total: bool = True
    view: View = View()
    applied: list[Pair] = []
    unknown: int = 0  # parameters that were ignored
    system: bool = False  # over all types, whatever `_type` leaves of them


class SearchReader:
    """One per datastore."""

    def __init__(self, definitions: Definitions, builder: ConditionBuilder, datastore: int) -> None:
        self._definitions = definitions
        self._builder = builder
        self._datastore = datastore

    def told(self, answers: Answers) -> SearchReader:
        """The same for one request, with what terminology says to it."""
        return SearchReader(self._definitions, self._builder.told(answers), self._datastore)

    def criteria(self, kind: str, pairs: list[Pair]) -> Search:
        """Criteria of conditional interactions: everything must be understood, something must be asked (ST-17)."""
        if not pairs or any(name in (*PASSIVE, *INCLUDES, "_count", "_sort") for name, _ in pairs):
            raise invalid("The criteria must be search parameters that select resources.")
        search = self.read((kind,), pairs, strict=True)
        if not search.applied:
            raise invalid("The criteria select nothing.")
        search.count, search.total = 2, False
        return search

    def read(self, kinds: tuple[str, ...], pairs: list[Pair], *, strict: bool, system: bool = False) -> Search:
        """`kinds` empty means every type; then only common parameters exist (ST-55)."""
        row = tables.current.alias("row")
        search = Search(row=row, kinds=kinds, system=system)
        search.conditions = [row.c.datastore_id == self._datastore, not_(row.c.deleted)]
        if len(kinds) == 1:
            search.conditions.append(row.c.resource_type == kinds[0])
        elif kinds:
            search.conditions.append(row.c.resource_type.in_(kinds))
        elements, summary = "", ""
        for name, value in pairs:
            if name in PASSIVE:
                continue
            if name == "_elements":
                elements = value
            elif name == "_summary":
                summary = value
            elif not self._apply(search, name, value, strict=strict):
                continue
            search.applied.append((name, value))
        search.view = view_of(elements, summary)
        if search.view.summary == "count":
            search.count = 0
        if search.view.summary == "text" and search.includes:
            raise invalid("_summary=text and includes exclude one another.")
        return search

    def _apply(self, search: Search, name: str, value: str, *, strict: bool) -> bool:
        """Whether the parameter had an effect."""
        base = name.split(":", maxsplit=1)[0]
        if base in REFUSED:
            raise not_supported("The store does not offer one of the search parameters.")
        if name in ("_count", "_total", "_sort", "_type"):
            self._control(search, name, value)
            return True
        if base in INCLUDES:
            search.includes.append(self._include(name, value))
            return True
        try:
            if not value:
                raise UnknownParameter
            kind = search.kinds[0] if len(search.kinds) == 1 else ""
            search.conditions.append(self._builder.condition(search.row, kind, name, value))
        except UnknownParameter:
            if strict:
                raise
            search.unknown += 1
            return False
        return True

    def _control(self, search: Search, name: str, value: str) -> None:
        if name == "_count":
            if not value.isascii() or not value.isdigit():
                raise invalid("_count is not a number.")
            search.count = min(int(value[:9]), LARGEST_COUNT)
        elif name == "_total":
            if value not in ("none", "estimate", "accurate"):
                raise invalid("_total takes none, estimate or accurate.")
            search.total = value != "none"
        elif name == "_sort":
            search.sort = self._sort(search, value)
        elif not search.system:
            raise invalid("_type belongs to searches over all types.")
        # _type itself was read by the caller, it decided `kinds`

    def _sort(self, search: Search, value: str) -> list[SortKey]:
        keys: list[SortKey] = []
        for part in value.split(","):
            code, descending = part.removeprefix("-"), part.startswith("-")
            if code == "_lastUpdated":
                keys.append(SortKey(search.row.c.last_updated, descending, "date"))
            elif code == "_id":
                keys.append(SortKey(search.row.c.resource_id, descending))
            else:
                keys.append(self._sort_key(search, code, descending))
        if len(keys) > MOST_SORT_KEYS:
            raise invalid("_sort has too many keys.")
        return keys

    def _sort_key(self, search: Search, code: str, descending: bool) -> SortKey:
        try:
            kind = search.kinds[0] if len(search.kinds) == 1 else ""
            parameter = self._builder.parameter(kind, code)
        except UnknownParameter:
            raise not_supported("_sort names a parameter that is not known for this type.") from None
        if parameter.type == "composite":
            raise not_supported("_sort does not take composite parameters.")
        table = index_table(parameter).alias()
        lowest, highest = SORT_COLUMNS[parameter.type]
        cast = CASTS.get(parameter.type, "text")
        column = table.c[highest if descending else lowest]
        present = func.nullif(column, "") if cast == "text" else column
        value = func.max(present) if descending else func.min(present)
        here = and_(
            table.c.datastore_id == self._datastore,
            table.c.parameter == parameter.key,
            table.c.resource_key == search.row.c.resource_key,
        )
        chosen = select(value).where(here).correlate(search.row).scalar_subquery()
        return SortKey(chosen, descending, cast)

    def _include(self, name: str, value: str) -> Include:
        base, _, modifier = name.partition(":")
        if modifier not in ("", "iterate", "recurse"):
            raise not_supported("An include has an unknown modifier.")
        source, _, rest = value.partition(":")
        code, _, target = rest.partition(":")
        if source == "*" and not rest:
            return Include("*", "*", "", base == "_revinclude", bool(modifier))
        types = self._definitions.resource_types
        if source not in types or (target and target not in types) or not code:
            raise invalid("An include is written Type:parameter or Type:parameter:Target.")
        if code != "*":
            parameter = self._definitions.parameters[source].get(code)
            if parameter is None or parameter.type != "reference":
                raise invalid("An include names something that is not a reference parameter.")
        return Include(source, code, target, base == "_revinclude", bool(modifier))
