"""The directory of organisations: thousands of addresses behind a few vendors, found by name, city and state (B-20)."""

from __future__ import annotations

import math
import re
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from itertools import islice

from msgspec import Struct

from wardmesh_common.organisations import organisation_id
from wardmesh_fhir_proxy.directory_files import DirectoryList, Header, Organisation

_WORD = re.compile(r"[a-z0-9]+")
_MAX_WORDS = 8
_MAX_COMPLETIONS = 64  # words that start with the one typed
_NAME, _ALIAS, _PLACE = 3.0, 2.0, 1.0


class Place(Struct, frozen=True):
    """One organisation with the list it stands in."""

    platform: str
    organisation: Organisation
    header: Header


class Found(Struct, frozen=True):
    place: Place
    score: float


def words_of(text: str) -> list[str]:
    """Lower case without accents: `Hôpital Sainte-Anne` is found as `hopital sainte anne`."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return _WORD.findall(plain)


class Directory:
    """An index in memory, built once per change of the files; a look-up touches only entries that share a word."""

    def __init__(self, lists: Iterable[DirectoryList] = ()) -> None:
        self.places: dict[str, Place] = {}
        self.counts: dict[str, int] = {}
        self._rows: list[Place] = []
        self._postings: dict[str, array[int]] = {}
        self._weights: dict[str, array[float]] = {}
        for each in lists:
            self.counts[each.header.vendor] = len(each.organisations)
            for organisation in each.organisations:
                self._add(Place(organisation_id(each.header.vendor, organisation.base), organisation, each.header))
        self._vocabulary = sorted(self._postings)

    def search(self, text: str, *, state: str = "", vendor: str = "", limit: int = 10) -> tuple[list[Found], int]:
        """Ranked, best first, and how many there are. Every word must match a word or the beginning of one."""
        scores: dict[int, float] | None = None
        for word in islice(dict.fromkeys(words_of(text)), _MAX_WORDS):
            matched = self._matches(word)
            if scores is None:
                scores = matched
            else:
                scores = {row: score + matched[row] for row, score in scores.items() if row in matched}
        fitting = [(row, score) for row, score in (scores or {}).items() if self._fits(row, state, vendor)]
        fitting.sort(key=lambda pair: (-pair[1], len(self._rows[pair[0]].organisation.name), pair[0]))
        return [Found(self._rows[row], round(score, 3)) for row, score in fitting[:limit]], len(fitting)

    def _fits(self, row: int, state: str, vendor: str) -> bool:
        place = self._rows[row]
        if state and place.organisation.state.lower() != state.strip().lower():
            return False
        return not vendor or place.header.vendor == vendor

    def _matches(self, word: str) -> dict[int, float]:
        """Rows with this word, or one that starts with it; a rare word says more than a common one."""
        found: dict[int, float] = {}
        for candidate in self._completions(word):
            rows = self._postings[candidate]
            rarity = math.log(1 + len(self._rows) / len(rows)) * (1.0 if candidate == word else 0.6)
            for row, weight in zip(rows, self._weights[candidate], strict=True):
                found[row] = max(found.get(row, 0.0), rarity * weight)
        return found

    def _completions(self, word: str) -> Iterable[str]:
        start = bisect_left(self._vocabulary, word)
        for candidate in islice(self._vocabulary, start, start + _MAX_COMPLETIONS):
            if not candidate.startswith(word):
                return
            yield candidate

    def _add(self, place: Place) -> None:
        # Two names for one address are two ways to find it; the platform is the same.
        self.places.setdefault(place.platform, place)
        row = len(self._rows)
        self._rows.append(place)
        said = place.organisation
        weights: dict[str, float] = {}
        fields = (
            (_NAME, said.name),
            *((_ALIAS, alias) for alias in said.aliases),
            (_PLACE, f"{said.city} {said.state} {said.postal}"),
        )
        for weight, text in fields:
            for word in words_of(text):
                weights[word] = max(weights.get(word, 0.0), weight)
        for word, weight in weights.items():
            self._postings.setdefault(word, array("l")).append(row)
            self._weights.setdefault(word, array("f")).append(weight)
