"""Answers to `ask.fhir.directory.search`: platforms of the catalogue first, then organisations of the directories."""

from __future__ import annotations

from wardmesh_common.errors import BadRequest
from wardmesh_common.questions import Ask, Candidate, DirectoryAnswer, DirectoryQuestion
from wardmesh_fhir_proxy.catalogue import Platforms
from wardmesh_fhir_proxy.descriptor import Descriptor
from wardmesh_fhir_proxy.directory import Found, words_of

MAX_LIMIT = 50
MAX_TEXT = 200


class Finder:
    """Never a guess: who fits is listed, and the asker chooses (B-20)."""

    def __init__(self, platforms: Platforms) -> None:
        self._platforms = platforms

    async def answer(self, question: DirectoryQuestion, ask: Ask) -> DirectoryAnswer:
        """Raises BadRequest for a text without a word."""
        del ask
        wanted = words_of(question.text[:MAX_TEXT])
        if not wanted:
            raise BadRequest("Invalid query: at least one word of a name, city or state is needed.")
        limit = max(1, min(question.limit, MAX_LIMIT))
        own = [] if question.vendor or question.state else self._catalogue(question.text.strip().lower(), wanted)
        found, total = self._platforms.directory.search(
            question.text[:MAX_TEXT], state=question.state, vendor=question.vendor, limit=limit
        )
        rows = [*own, *(self._candidate(each) for each in found)]
        return DirectoryAnswer(candidates=tuple(rows[:limit]), total=total + len(own))

    def _catalogue(self, text: str, wanted: list[str]) -> list[Candidate]:
        scored = [(score, d) for d in self._platforms.descriptors.values() if (score := _fit(d, text, wanted))]
        scored.sort(key=lambda pair: (-pair[0], not pair[1].live, pair[1].name))
        return [
            Candidate(
                platform=d.id,
                name=d.name,
                fhir_base_url=d.bases.patient,
                verification_status=d.verification.status,
                verified_on=d.verification.verified_on,
                source="catalogue",
                score=score,
            )
            for score, d in scored
        ]

    def _candidate(self, found: Found) -> Candidate:
        place, said = found.place, found.place.organisation
        verification = self._platforms.tenant(place.platform).verification
        return Candidate(
            platform=place.platform,
            name=said.name,
            vendor=place.header.vendor,
            city=said.city,
            state=said.state,
            fhir_base_url=said.base,
            verification_status=verification.status,
            verified_on=verification.verified_on,
            source=place.header.source,
            listed_on=place.header.listed_on,
            score=found.score,
        )


def _fit(descriptor: Descriptor, text: str, wanted: list[str]) -> float:
    """Id, alias or payer id in full say most; otherwise every word must begin a word of the name or an alias."""
    if text == descriptor.id or text in {alias.lower() for alias in descriptor.aliases}:
        return 100.0
    if text in {payer.lower() for payer in descriptor.payer_ids}:
        return 90.0
    words = words_of(" ".join((descriptor.name, descriptor.id, *descriptor.aliases)))
    if all(any(word.startswith(part) for word in words) for part in wanted):
        return 50.0
    return 0.0
