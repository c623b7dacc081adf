"""Expands value sets to codes, from what the store and its definitions hold; what is not held is refused."""

from __future__ import annotations

from wardmesh_fhir_store.definitions import Definitions
from wardmesh_fhir_store.terminology.sets import Codes, Expansion, Portion, ValueSetBody, common, size, united, without
from wardmesh_fhir_store.terminology.shelf import Shelf
from wardmesh_fhir_store.terminology.systems import CodeSystem, Unanswerable

MOST_CODES = 10_000
DEEPEST = 10  # value sets inside value sets
VALUE_SETS = "http://hl7.org/fhir/ValueSet/"
_RELEASE = "4.0.1"


class Expander:
    """One per request; each value set is expanded once."""

    def __init__(self, definitions: Definitions, shelf: Shelf) -> None:
        self._definitions = definitions
        self._shelf = shelf
        self._done: dict[str, Codes] = {}

    async def expand(self, named: str, trail: tuple[str, ...] = ()) -> Codes:
        """Raises Unanswerable."""
        if named in trail or len(trail) > DEEPEST:
            raise Unanswerable("Value sets refer to one another in a circle or too deeply.")
        if named not in self._done:
            found = await self._own(named)
            self._done[named] = await self._stored(named, trail) if found is None else found
        return self._done[named]

    async def system(self, url: str, version: str = "") -> CodeSystem:
        """Raises Unanswerable."""
        found = await self._shelf.code_system(url, version)
        if found is None:
            raise Unanswerable("The code system is not held in this datastore.")
        return found

    async def _own(self, named: str) -> Codes | None:
        """One of FHIR's value sets with required codes, which come with the store."""
        url, _, version = named.partition("|")
        held = self._definitions.value_sets.get(url.removeprefix(VALUE_SETS))
        if held is None or not held.system or not url.startswith(VALUE_SETS) or version not in ("", _RELEASE):
            return None
        return {held.system: await self._keys(held.system, held.codes)}

    async def _stored(self, named: str, trail: tuple[str, ...]) -> Codes:
        body = await self._shelf.value_set(named)
        if body is None:
            raise Unanswerable("The value set is not held, neither in this datastore nor with the store.")
        codes = await self._body(body, (*trail, named))
        if size(codes) > MOST_CODES:
            raise Unanswerable("The value set has too many codes to be searched with.")
        return codes

    async def _body(self, body: ValueSetBody, trail: tuple[str, ...]) -> Codes:
        if body.compose is None:
            return await self._expansion(body.expansion)
        if not body.compose.inactive or body.compose.locked_date:
            raise Unanswerable("A value set depends on which codes are or were active; that is not looked at.")
        found, excluded = Codes(), Codes()
        for portion in body.compose.include:
            found = united(found, await self._portion(portion, trail))
        for portion in body.compose.exclude:
            excluded = united(excluded, await self._portion(portion, trail))
        return without(found, excluded)

    async def _expansion(self, expansion: Expansion | None) -> Codes:
        """Taken as it stands when it is whole and there is nothing that it was made from."""
        if expansion is None:
            raise Unanswerable("A value set says nothing about its codes.")
        flat = expansion.flat()
        if expansion.offset or expansion.total not in (-1, len(flat)):
            raise Unanswerable("A value set is held with a part of its expansion only.")
        by_system: dict[str, list[str]] = {}
        for one in flat:
            by_system.setdefault(one.system, []).append(one.code)
        return {system: await self._keys(system, codes) for system, codes in by_system.items()}

    async def _portion(self, portion: Portion, trail: tuple[str, ...]) -> Codes:
        """What the system part says, and what is in every value set that is named beside it."""
        found = await self._of_system(portion) if portion.system else None
        for named in portion.value_set:
            if not named:
                raise Unanswerable("A value set includes another one that it does not name.")
            inner = await self.expand(named, trail)
            found = inner if found is None else common(found, inner)
        if found is None or (not portion.system and (portion.concept or portion.filter)):
            raise Unanswerable("A value set includes codes without saying of which code system.")
        return found

    async def _of_system(self, portion: Portion) -> Codes:
        if portion.concept:
            if portion.filter:
                raise Unanswerable("A value set lists codes and filters them at once.")
            return {portion.system: await self._keys(portion.system, [one.code for one in portion.concept])}
        system = await self.system(portion.system, portion.version)
        codes = system.codes()
        for rule in portion.filter:
            if rule.property != "concept" or rule.op not in ("is-a", "descendent-of"):
                raise Unanswerable("A value set has a filter other than concept is-a and concept descendent-of.")
            below = system.below(rule.value)
            codes &= below if rule.op == "is-a" else below - {system.key(rule.value)}
        return {portion.system: codes}

    async def _keys(self, system: str, codes: list[str]) -> frozenset[str]:
        exact = await self.exact(system)
        return frozenset(code if exact else code.lower() for code in codes)

    async def exact(self, system: str) -> bool:
        """Whether the system is known as one whose case tells codes apart."""
        if system in self._definitions.case_sensitive:
            return True
        held = await self._shelf.code_system(system)
        return held is not None and held.exact
