"""Renders docs/differences.md from the lists: `python tests/fhir-store/differential/page.py` writes it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

from comparing import Reason, reasons
from script import steps

HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs" / "differences.md"
ENGINES = {
    "medplum": "The in-memory engine of the npm package @medplum/fhir-router 5.2.13",
    "hapi": "HAPI FHIR 8.8.0 (JPA server on H2)",
}
WORDS = {"store": "the store", "both": "both: left open", "neither": "neither", "other": "the other"}
INTRODUCTION = """# Where the embedded store and other FHIR engines differ

The same {count} scripted requests (`tests/fhir-store/differential/steps`) go to the embedded store and to two engines
that share no code with it. Status, matches and their order, totals, includes, pages, history and the content of every
resource are compared. What differs is listed with its values in `tests/fhir-store/differential/differences`; a test
fails for a difference that is not listed and for a listed one that no longer occurs. Where another engine was right,
the store was mended: it used to accept 31 February, which its published pattern allows and datatypes.html does not.

The comparison with the in-memory engine is part of `make test`. The one with HAPI needs Java 17 and Maven, downloads
some 350 MB once, and takes a minute: `WARDMESH_TEST_HAPI=1 .venv/bin/pytest tests/fhir-store/differential`. It also
runs HAPI as a platform behind the gateway, as `wardmesh up --platform hapi-local=http://127.0.0.1:8080/fhir` does;
what HAPI lacks is said in its file in the catalogue.

This page is made from the lists. Sections are those of the R4 specification.
"""


def table(engine: str, known: list[Reason]) -> str:
    differing = {step for reason in known for step in reason.differs}
    lines = [
        f"\n## {ENGINES[engine]}\n",
        f"{len(steps()) - len(differing)} of {len(steps())} requests are answered alike.\n",
    ]
    lines += ["| Difference | Requests | Right by R4 | Section | Why |", "|---|---|---|---|---|"]
    for reason in known:
        cells = (reason.title, str(len(reason.differs)), WORDS[reason.right], reason.specification, reason.because)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    tables = [table(engine, reasons(HERE / "differences" / f"{engine}.yaml")) for engine in ENGINES]
    return INTRODUCTION.format(count=len(steps())) + "".join(tables)


if __name__ == "__main__":
    PAGE.write_text(page())
