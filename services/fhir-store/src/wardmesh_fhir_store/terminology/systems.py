"""A stored CodeSystem as a hierarchy: which codes it has, and which stand below and above one of them."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from wardmesh_fhir_store.faults import Fault

PROPERTIES = "http://hl7.org/fhir/concept-properties#"


class Unanswerable(Fault):
    """What was asked cannot be told from what is held; nothing is guessed."""

    def __init__(self, diagnostics: str) -> None:
        super().__init__(400, "not-supported", diagnostics)


class Declared(Struct):
    code: str = ""
    uri: str = ""


class Property(Struct, rename="camel"):
    code: str = ""
    value_code: str = ""


class Concept(Struct):
    code: str = ""
    concept: list[Concept] = []
    property: list[Property] = []


class CodeSystemBody(Struct, rename="camel"):
    """The members of the resource that say what is a kind of what."""

    url: str = ""
    version: str = ""
    status: str = ""
    content: str = ""
    hierarchy_meaning: str = ""
    case_sensitive: bool = False
    property: list[Declared] = []
    concept: list[Concept] = []


class CodeSystem:
    """`exact`: case tells codes apart; where it does not, codes are known by their lower case."""

    def __init__(self, body: CodeSystemBody, *, exact: bool) -> None:
        self.exact = exact
        self._complete = body.content == "complete"
        self._kinds = body.hierarchy_meaning in ("", "is-a")
        self._parents: dict[str, set[str]] = {}
        self._children: dict[str, set[str]] = {}
        up, down = _named(body, "parent"), _named(body, "child")
        waiting = [(concept, "") for concept in body.concept]
        while waiting:
            concept, parent = waiting.pop()
            self._add(concept, parent, up, down)
            waiting += [(inner, concept.code) for inner in concept.concept]

    def _add(self, concept: Concept, parent: str, up: set[str], down: set[str]) -> None:
        code = self.key(concept.code)
        self._parents.setdefault(code, set())
        above = {parent} if parent else set[str]()
        above |= {one.value_code for one in concept.property if one.code in up and one.value_code}
        below = {one.value_code for one in concept.property if one.code in down and one.value_code}
        for pair in [(one, concept.code) for one in above] + [(concept.code, one) for one in below]:
            upper, lower = self.key(pair[0]), self.key(pair[1])
            self._children.setdefault(upper, set()).add(lower)
            self._parents.setdefault(lower, set()).add(upper)
            self._parents.setdefault(upper, set())

    def key(self, code: str) -> str:
        return code if self.exact else code.lower()

    def codes(self) -> frozenset[str]:
        """Raises Unanswerable."""
        if not self._complete:
            raise Unanswerable("The code system is not held as a whole: its content is not `complete`.")
        return frozenset(self._parents)

    def below(self, code: str) -> frozenset[str]:
        """The code and everything that is a kind of it. Raises Unanswerable."""
        return self._reached(code, self._children)

    def above(self, code: str) -> frozenset[str]:
        """The code and everything that it is a kind of. Raises Unanswerable."""
        return self._reached(code, self._parents)

    def _reached(self, code: str, steps: Mapping[str, set[str]]) -> frozenset[str]:
        if not self._kinds:
            raise Unanswerable("The hierarchy of the code system does not say what is a kind of what.")
        start = self.key(code)
        if start not in self.codes():
            raise Unanswerable("The code system that is held does not have the code.")
        found, waiting = {start}, [start]
        while waiting:  # a circle ends where it began
            fresh = steps.get(waiting.pop(), set()) - found
            found |= fresh
            waiting += fresh
        return frozenset(found)


def _named(body: CodeSystemBody, relation: str) -> set[str]:
    """The properties that mean `parent` or `child`: by their address, or by their name when they have none."""
    declared = {one.code: one.uri for one in body.property}
    found = {code for code, uri in declared.items() if uri == PROPERTIES + relation}
    return found if declared.get(relation) else found | {relation}
