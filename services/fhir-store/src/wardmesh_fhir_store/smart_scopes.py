"""What a SMART token allows here: scopes of both dialects, and how far each of them reaches."""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct

# Letters only in the order c, r, u, d, s. A scope with a constraint (`?category=...`) grants nothing here.
_SCOPE = re.compile(r"(patient|user|system)/([A-Z][A-Za-z]*|\*)\.(read|write|\*|c?r?u?d?s?)")
_WORDS = {"read": "rs", "write": "cud", "*": "cruds"}
ANY = "*"


class Held(Struct, frozen=True):
    """One scope taken apart."""

    own: bool  # patient/: only the record that the token was given for
    kind: str
    letters: frozenset[str]


class Access(Struct, frozen=True):
    """The scopes of one token and the patient of its launch context."""

    held: tuple[Held, ...]
    patient: str = ""

    def everywhere(self, letters: str, kind: str) -> bool:
        """Do user/ and system/ scopes cover this on every record?"""
        return self._covers(letters, kind, own=False)

    def in_record(self, letters: str, kind: str) -> bool:
        """Do they cover it at least inside the record of the token's patient?"""
        return self.everywhere(letters, kind) or (bool(self.patient) and self._covers(letters, kind, own=True))

    def _covers(self, letters: str, kind: str, *, own: bool) -> bool:
        found = {
            letter for scope in self.held if scope.own == own and scope.kind in (ANY, kind) for letter in scope.letters
        }
        return found.issuperset(letters)


def access_of(scopes: Iterable[str], patient: str) -> Access:
    """Anything that is not a well-formed resource scope grants nothing."""
    matches = (_SCOPE.fullmatch(scope) for scope in scopes)
    held = [
        Held(match[1] == "patient", match[2], frozenset(_WORDS.get(match[3], match[3])))
        for match in matches
        if match is not None and match[3]
    ]
    return Access(tuple(held), patient)
