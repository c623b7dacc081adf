"""What the definitions say of an element: its types, whether it repeats, whether it is a choice."""

from __future__ import annotations

from functools import lru_cache

from msgspec import Struct

from wardmesh_fhir_store.definitions import Definitions
from wardmesh_fhir_store.schema import INHERITED


class Element(Struct, frozen=True):
    """`name` is as the definitions have it (`value[x]`); `kind` the type that stands under the JSON member."""

    name: str
    path: str
    kind: str
    many: bool

    @property
    def stem(self) -> str:
        return self.name.removesuffix("[x]")


class Elements:
    """Looks elements up by the type (or backbone path) that holds them and their JSON member."""

    def __init__(self, definitions: Definitions) -> None:
        self._types = definitions.types
        self.find = lru_cache(maxsize=8192)(self._find)
        self.words = lru_cache(maxsize=2048)(self._words)

    def _words(self, owner: str) -> dict[str, str]:
        """Every element of the owner with its word, inherited ones too."""
        own = dict(self._types.get(owner, {}))
        return INHERITED.get(own.pop("$", ""), {}) | own

    def _find(self, owner: str, member: str) -> Element | None:
        """`member` is a JSON member without its underscore."""
        words = self.words(owner)
        if member in words:
            cardinality, kinds = words[member].split(" ", 1)
            kind = kinds.split("|")[0]
            return Element(member, f"{owner}.{member}", _plain(kind), not cardinality.rstrip("S").endswith("1"))
        for name, word in words.items():
            if name.endswith("[x]") and member.startswith(name[:-3]):
                rest = member.removeprefix(name[:-3])
                for kind in word.split(" ", 1)[1].split("|"):
                    plain = _plain(kind)
                    if plain[0].upper() + plain[1:] == rest:
                        return Element(name, f"{owner}.{name}", plain, many=False)
        return None

    def choice(self, owner: str, stem: str) -> list[str]:
        """The JSON members that a choice element may stand under; empty when there is no such choice."""
        word = self.words(owner).get(f"{stem}[x]")
        if word is None:
            return []
        kinds = [_plain(kind) for kind in word.split(" ", 1)[1].split("|")]
        return [stem + kind[0].upper() + kind[1:] for kind in kinds]


def _plain(kind: str) -> str:
    """`Reference(Patient)` → `Reference`, `code!set` → `code`, `@Patient.contact` → `Patient.contact`."""
    return kind.removeprefix("@").split("!")[0].split("(")[0]
