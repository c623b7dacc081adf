"""Search parameters as SQL: simple, chained and reverse-chained conditions on rows of `fhir_current`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    Table,
    and_,
    any_,
    exists,
    false,
    func,
    not_,
    or_,
    select,
    union_all,
)

from wardmesh_fhir_store import tables
from wardmesh_fhir_store.composites import slot_columns
from wardmesh_fhir_store.definitions import Definitions, Parameter, parameter_key
from wardmesh_fhir_store.faults import Fault, invalid, not_supported
from wardmesh_fhir_store.matching import Matcher, check_modifier, date_span, prefixed, range_condition
from wardmesh_fhir_store.query import split, unescape
from wardmesh_fhir_store.references import ID
from wardmesh_fhir_store.terminology.questions import Answers

Condition = ColumnElement[bool]
TABLE_OF: dict[str, str] = {"reference": "ref"}
LONGEST_CHAIN = 5
# Modifiers that look into rows of their own, and the table these stand in.
BESIDE: dict[str, Table] = {"identifier": tables.token, "of-type": tables.token, "text": tables.string}


class UnknownParameter(Fault):
    """Lenient searches report it, strict ones and criteria refuse it (ST-54, ST-17)."""

    def __init__(self) -> None:
        super().__init__(400, "not-supported", "A search parameter is not known for this type.")


def index_table(parameter: Parameter) -> Table:
    return tables.INDEX_TABLES[TABLE_OF.get(parameter.type, parameter.type)]


def array_of(query: Select[Any]) -> ColumnElement[Any]:
    """Evaluated once, from the inside out: a chain must not depend on statistics that a bulk load has outrun."""
    return func.array(query.scalar_subquery())


class ConditionBuilder:
    """Turns `name=value` into a condition on an alias of `fhir_current`, for one datastore."""

    def __init__(self, definitions: Definitions, matcher: Matcher, datastore: int) -> None:
        self._definitions = definitions
        self._matcher = matcher
        self._datastore = datastore

    def told(self, answers: Answers) -> ConditionBuilder:
        """The same for one request, with what terminology says to it."""
        return ConditionBuilder(self._definitions, self._matcher.told(answers), self._datastore)

    def condition(self, row: FromClause, kind: str, name: str, value: str, depth: int = 0) -> Condition:
        """`kind` is the resource type that `row` ranges over, or "" for all types."""
        if depth > LONGEST_CHAIN:
            raise invalid("A chain in the query is too long.")
        if name.startswith("_has:"):
            return self._has(row, kind, name, value, depth)
        first, dot, rest = name.partition(".")
        code, _, modifier = first.partition(":")
        if dot:
            return self._chain(row, kind, code, modifier, rest, value, depth)
        if code == "_id":
            return self._identity(row, modifier, value)
        if code == "_lastUpdated":
            return self._last_updated(row, modifier, value)
        if code == "_list":
            return self._list(row, modifier, value)
        return self._simple(row, self.parameter(kind, code), kind, modifier, value)

    def parameter(self, kind: str, code: str) -> Parameter:
        """Raises UnknownParameter."""
        table = self._definitions.parameters[kind] if kind else self._definitions.common
        if code not in table:
            raise UnknownParameter
        return table[code]

    def _identity(self, row: FromClause, modifier: str, value: str) -> Condition:
        if modifier:
            raise not_supported("_id takes no modifier.")
        ids = [unescape(part) for part in split(value, ",")]
        if not all(ID.fullmatch(part) for part in ids):
            raise invalid("An id in the query is not a FHIR id.")
        return row.c.resource_id.in_(ids)

    def _last_updated(self, row: FromClause, modifier: str, value: str) -> Condition:
        if modifier:
            raise not_supported("_lastUpdated takes no modifier.")
        moment = row.c.last_updated
        found: list[Condition] = []
        for part in split(value, ","):
            prefix, text = prefixed(part)
            start, end = date_span(text)
            if prefix == "eq":
                found.append(and_(moment >= start, moment < end))
            elif prefix in ("gt", "sa"):
                found.append(moment >= end)
            elif prefix == "ge":
                found.append(moment >= start)
            elif prefix in ("lt", "eb"):
                found.append(moment < start)
            elif prefix == "le":
                found.append(moment < end)
            else:
                found.append(range_condition(prefix, moment, moment, (start, end)))
        return or_(*found)

    def _simple(self, row: FromClause, parameter: Parameter, kind: str, modifier: str, value: str) -> Condition:
        check_modifier(parameter, modifier, self._definitions.resource_types)
        owner = kind if parameter.code not in self._definitions.common else "Resource"
        key = parameter_key(owner, f"{parameter.code}:{modifier}") if modifier in BESIDE else parameter.key
        table = BESIDE.get(modifier, index_table(parameter)).alias()
        here = and_(
            table.c.datastore_id == self._datastore,
            table.c.parameter == key,
            table.c.resource_key == row.c.resource_key,
        )
        if modifier == "missing":
            if value not in ("true", "false"):
                raise invalid(":missing takes true or false.")
            present = exists(select(table.c.resource_key).where(here))
            return not_(present) if value == "true" else present
        if parameter.type == "composite":
            choices = [self._composite(table.c, parameter, kind, part) for part in split(value, ",")]
        else:
            choices = [self._matcher.condition(table.c, parameter, modifier, part) for part in split(value, ",")]
        found = exists(select(table.c.resource_key).where(here, or_(*choices)))
        return not_(found) if modifier in ("not", "not-in") else found

    def _composite(self, columns: Any, parameter: Parameter, kind: str, value: str) -> Condition:
        parts = split(value, "$")
        if len(parts) != len(parameter.components):
            raise invalid("A composite in the query has another number of parts than the parameter.")
        found: list[Condition] = []
        for number, (component, part) in enumerate(zip(parameter.components, parts, strict=True)):
            single = self.parameter(kind, component.code)
            here = slot_columns(columns, number, single.type)
            found.append(self._matcher.condition(here, single, "", part))
        return and_(*found)

    def _list(self, row: FromClause, modifier: str, value: str) -> Condition:
        """Members of stored Lists (ST-44)."""
        ids = [unescape(part).removeprefix("List/") for part in split(value, ",")]
        if modifier or not all(ID.fullmatch(part) for part in ids):
            raise not_supported("_list takes ids of stored Lists.")
        link, holder = tables.reference.alias(), tables.current.alias()
        keys = select(holder.c.resource_key).where(self._living(holder, "List"), holder.c.resource_id.in_(ids))
        return exists(
            select(link.c.resource_key).where(
                link.c.datastore_id == self._datastore,
                link.c.target_type == row.c.resource_type,
                link.c.target_id == row.c.resource_id,
                link.c.parameter == self._definitions.parameters["List"]["item"].key,
                link.c.resource_key == any_(array_of(keys)),
            )
        )

    def _chain(
        self, row: FromClause, kind: str, code: str, modifier: str, rest: str, value: str, depth: int
    ) -> Condition:
        parameter = self.parameter(kind, code)
        if parameter.type != "reference":
            raise invalid("Only references can be chained.")
        targets = [modifier] if modifier else list(parameter.targets)
        found: list[Condition] = []
        for target in targets:
            if target not in self._definitions.resource_types:
                raise invalid("A chain in the query names an unknown type.")
            link, other = tables.reference.alias(), tables.current.alias()
            try:
                inner = self.condition(other, target, rest, value, depth + 1)
            except UnknownParameter:
                continue
            ids = select(other.c.resource_id).where(self._living(other, target), inner)
            owners = select(link.c.resource_key).where(
                link.c.datastore_id == self._datastore,
                link.c.target_type == target,
                link.c.target_id == any_(array_of(ids)),
                link.c.parameter == parameter.key,
            )
            found.append(row.c.resource_key == any_(array_of(owners)))
        if not found:
            raise UnknownParameter
        return or_(*found)

    def _has(self, row: FromClause, kind: str, name: str, value: str, depth: int) -> Condition:
        parts = name.split(":", 3)
        if len(parts) != 4 or parts[1] not in self._definitions.resource_types or not kind:
            raise invalid("_has is written _has:Type:reference:parameter.")
        _, source, code, rest = parts
        parameter = self.parameter(source, code)
        if parameter.type != "reference":
            raise invalid("_has needs a reference parameter.")
        link, other = tables.reference.alias(), tables.current.alias()
        inner = self.condition(other, source, rest, value, depth + 1)
        keys = select(other.c.resource_key).where(self._living(other, source), inner)
        targets = select(link.c.target_id).where(
            link.c.datastore_id == self._datastore,
            link.c.parameter == parameter.key,
            link.c.target_type == kind,
            link.c.resource_key == any_(array_of(keys)),
        )
        return row.c.resource_id == any_(array_of(targets))

    def _living(self, row: FromClause, kind: str) -> Condition:
        return and_(row.c.datastore_id == self._datastore, row.c.resource_type == kind, not_(row.c.deleted))

    def in_compartment(self, row: FromClause, compartment: str, identity: str, kind: str = "") -> Condition:
        """Rows of the compartment; with `kind` only that member type. The owner itself is a member of the whole."""
        members = self._definitions.compartments[compartment]
        kinds = [kind] if kind else sorted(members)
        keys = [
            self._definitions.parameters[k][code].key
            for k in kinds
            for code in members.get(k, ())
            if code in self._definitions.parameters[k]
        ]
        link = tables.reference.alias()
        tied = and_(
            link.c.datastore_id == self._datastore,
            link.c.target_type == compartment,
            link.c.target_id == identity,
            link.c.parameter.in_(keys),
        )
        found = [select(link.c.resource_key).where(tied)] if keys else []
        if not kind or kind == compartment:
            owner = tables.current.alias()
            here = and_(self._living(owner, compartment), owner.c.resource_id == identity)
            found.append(select(owner.c.resource_key).where(here))
        if not found:
            return false()
        # Read before the rest: with OR and EXISTS every resource of the datastore would be looked at.
        return row.c.resource_key == any_(func.array(union_all(*found).scalar_subquery()))
