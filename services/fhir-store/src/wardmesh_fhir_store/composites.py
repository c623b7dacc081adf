"""Composite parameters: components of the same repetition stand in one index row (ST-43)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from types import SimpleNamespace
from typing import Any

from wardmesh_fhir_store.definitions import Branch, Component, Definitions, Parameter
from wardmesh_fhir_store.jsontext import Tree
from wardmesh_fhir_store.paths import steps_of, walk

Row = tuple[Any, ...]
Rows = dict[str, list[Row]]  # index table → rows without datastore and resource key
Values = Callable[[str, Parameter, Branch, Any], Rows]
COLUMNS = (
    *("system", "code", "key", "text_1", "text_2", "text_3", "text_4"),
    *("low", "high", "starts", "ends", "low_3", "high_3"),
)
EMPTY: dict[str, Any] = dict.fromkeys(COLUMNS[:7], "") | dict.fromkeys(COLUMNS[7:])
# Parameter type → its own columns and where they stand for the second component.
SECOND: dict[str, tuple[tuple[str, str], ...]] = {
    "token": (("system", "text_1"), ("code", "text_2"), ("key", "text_3")),
    "string": (("value", "text_1"), ("folded", "text_2")),
    "date": (("low", "starts"), ("high", "ends")),
    "number": (("low", "low"), ("high", "high")),
    "quantity": (("low", "low"), ("high", "high"), ("system", "text_1"), ("code", "text_2"), ("unit", "text_3")),
    "reference": (("target_type", "text_1"), ("target_id", "text_2"), ("target_version", "text_3"), ("url", "text_4")),
    "uri": (("value", "text_1"),),
}
FIRST = {"token": (("system", "system"), ("code", "code"), ("key", "key"))}
THIRD = {"number": (("low", "low_3"), ("high", "high_3"))}
PLACES = (FIRST, SECOND, THIRD)


class Composites:
    """`values` indexes one value as the component's own parameter would."""

    def __init__(self, definitions: Definitions, values: Values) -> None:
        self._definitions = definitions
        self._values = values

    def add(self, kind: str, parameter: Parameter, tree: Tree, rows: Rows) -> None:
        for branch in parameter.branches:
            for node in walk(tree, steps_of(branch.path)):
                slots: list[list[dict[str, Any]]] = []
                # The last component first: it says most often that there is nothing to index.
                for number in reversed(range(len(parameter.components))):
                    slots.append(list(self._slot(kind, number, parameter.components[number], node, tree)))
                    if not slots[-1]:
                        break
                else:
                    self._pair(parameter, slots, rows)

    @staticmethod
    def _pair(parameter: Parameter, slots: list[list[dict[str, Any]]], rows: Rows) -> None:
        for chosen in product(*slots):
            row = dict(EMPTY)
            for part in chosen:
                row.update(part)
            rows.setdefault("composite", []).append((parameter.key, *(row[name] for name in COLUMNS)))

    def _slot(self, kind: str, number: int, part: Component, node: Any, tree: Tree) -> Iterator[dict[str, Any]]:
        parameter = self._definitions.parameters[kind][part.code]
        places = PLACES[number][parameter.type]
        for branch in part.branches:
            rooted = branch.path.startswith("^")
            for value in walk(tree if rooted else node, steps_of(branch.path.removeprefix("^"))):
                found = self._values(kind, parameter, branch, value)
                table = "ref" if parameter.type == "reference" else parameter.type
                for row in found.get(table, ()):
                    if row[0] == parameter.key:  # not those of `:text` and the like
                        yield {place: value for (_, place), value in zip(places, row[1:], strict=True)}


def slot_columns(columns: Any, number: int, kind: str) -> SimpleNamespace:
    """The columns of one component under the names that its own index table has."""
    return SimpleNamespace(**{name: columns[place] for name, place in PLACES[number][kind]})
