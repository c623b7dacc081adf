"""What the documents say that can be tried: commands, addresses, names of settings, platforms, tools and files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The list of what the product must do, in words that describe other systems too: not a guide that anybody follows.
NO_GUIDE = {"requirements.md"}
PAGES = sorted(
    path
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    if path.name not in NO_GUIDE
)
_VERBS = "GET|HEAD|POST|PUT|PATCH|DELETE"


@dataclass(frozen=True)
class Said:
    """Something that a page says."""

    page: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def _all(pattern: str) -> Iterator[tuple[str, re.Match[str]]]:
    for page in PAGES:
        for found in re.finditer(pattern, page.read_text(), re.MULTILINE):
            yield str(page.relative_to(ROOT)), found


def _fenced() -> Iterator[Said]:
    for page in PAGES:
        inside = False
        for line in page.read_text().splitlines():
            if line.startswith("```"):
                inside = not inside
            elif inside:
                yield Said(str(page.relative_to(ROOT)), line.split("  #")[0].strip())


def _inline() -> Iterator[Said]:
    yield from (Said(page, found[1]) for page, found in _all(r"`([^`\n]+)`"))


def commands(*programs: str) -> list[Said]:
    """Lines of blocks, and words between backticks, that call one of these programs."""
    found = [*_fenced(), *_inline()]
    starts = tuple(f"{name} " for name in programs)
    bare = [Said(said.page, said.text.removeprefix(".venv/bin/")) for said in found]
    return list(dict.fromkeys(said for said in bare if said.text.startswith(starts)))


def spelled(text: str) -> Iterator[list[str]]:
    """The command lines that a synopsis stands for: with and without what is optional, one per alternative."""
    if optional := re.search(r" ?\[([^\]]*)\]", text):
        before, after = text[: optional.start()], text[optional.end() :]
        yield from spelled(before + after)
        yield from spelled(f"{before} {optional[1]}{after}")
        return
    words = shlex.split(text)
    for position, word in enumerate(words):
        if re.fullmatch(r"[\w-]+(\|[\w-]+)+", word):
            for one in word.split("|"):
                yield from spelled(shlex.join([*words[:position], one, *words[position + 1 :]]))
            return
    yield words


def routes() -> list[Said]:
    """`GET /path`, as `METHOD /path`."""
    found = _all(rf"`((?:{_VERBS}) /[^\s`?{{]*(?:\{{[^}}`]*\}}[^\s`?{{]*)*)")
    return list(dict.fromkeys(Said(page, match[1]) for page, match in found))


def addresses() -> list[Said]:
    """Every URL that a page names."""
    return list(dict.fromkeys(Said(page, match[0].rstrip(".:;'")) for page, match in _all(r"https?://[^\s\"`)>|,\]]+")))


def links() -> list[tuple[Path, str]]:
    """Page and target of every link inside the repository."""
    found = ((ROOT / page, match[1]) for page, match in _all(r"\]\(([^)\s]+)\)"))
    return [
        (page, target.split("#")[0]) for page, target in found if "://" not in target and not target.startswith("#")
    ]


def settings() -> list[Said]:
    pattern = r"`((?:WARDMESH|FHIR_GATEWAY|SMART|HEALTHLAKE)_[A-Z0-9_{}]+)(?:=[^`]*)?`"
    return list(dict.fromkeys(Said(page, match[1]) for page, match in _all(pattern)))


def platforms() -> list[Said]:
    pattern = r"platform_id=\\?\"([a-z0-9-]+)\"|/(?:api/fhir|fhir)/([a-z][a-z0-9-]+)/|/auth/([a-z][a-z0-9-]+)/log"
    return [Said(page, match[1] or match[2] or match[3]) for page, match in _all(pattern)]


def tool_calls() -> list[Said]:
    """`tool(argument, ...)` between backticks."""
    return [Said(page, match[1]) for page, match in _all(r"`([a-z_]+\([^`)]*\))")]
