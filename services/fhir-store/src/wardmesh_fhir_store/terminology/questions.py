"""What the parameters of a search ask about terminology, answered before the search becomes SQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from wardmesh_fhir_store.query import Pair, split, unescape
from wardmesh_fhir_store.terminology.expanding import MOST_CODES, Expander
from wardmesh_fhir_store.terminology.sets import Codes, size
from wardmesh_fhir_store.terminology.systems import Unanswerable

MOST_QUESTIONS = 20
ASKED = {"in": "in", "not-in": "in", "above": "above", "below": "below"}


class Question(NamedTuple):
    """`value` as it stands in the query, escapes included."""

    kind: str
    value: str


class Answer(NamedTuple):
    """`exact`: the systems whose case tells codes apart."""

    codes: Codes
    exact: frozenset[str]


Answers = Mapping[Question, Answer | Unanswerable]


def questions_of(pairs: list[Pair]) -> list[Question]:
    """Also those of parameters that turn out to be something else: nobody will ask for their answers."""
    found: dict[Question, None] = {}
    for name, value in pairs:
        kind = ASKED.get(name.rpartition(":")[2]) if ":" in name else None
        for part in split(value, ",") if kind else ():
            if kind and (kind == "in" or len(split(part, "|")) == 2):
                found[Question(kind, part)] = None
    return list(found)


async def answered(expander: Expander, questions: list[Question]) -> Answers:
    """A refusal is an answer too: it matters only if the parameter does."""
    answers: dict[Question, Answer | Unanswerable] = {}
    left = MOST_CODES
    for number, question in enumerate(questions, start=1):
        try:
            if number > MOST_QUESTIONS:
                raise Unanswerable("The query asks about too many code systems and value sets.")
            codes = await _codes(expander, question)
            left -= size(codes)
            if left < 0:
                raise Unanswerable("The code systems and value sets of the query have too many codes.")
            exact = [system for system in codes if await expander.exact(system)]
            answers[question] = Answer(codes, frozenset(exact))
        except Unanswerable as refusal:
            answers[question] = refusal
    return answers


async def _codes(expander: Expander, question: Question) -> Codes:
    if question.kind == "in":
        return await expander.expand(unescape(question.value))
    url, code = (unescape(part) for part in split(question.value, "|"))
    if not url or not code:
        raise Unanswerable(":above and :below take system|code.")
    system = await expander.system(url)
    return {url: system.below(code) if question.kind == "below" else system.above(code)}
