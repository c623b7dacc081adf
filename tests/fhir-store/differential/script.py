"""The scripted requests: read from YAML, where dates stay text, so that every side is sent the same characters."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
CHAPTERS = ("search", "writes", "bundles")
_VERBS = ("get", "post", "put", "patch", "delete")


class _Text(yaml.SafeLoader):
    """FHIR dates are not YAML dates."""


_Text.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True)
class Step:
    """One request and what of its answer is compared; the name is a key of the lists of differences."""

    name: str
    method: str
    path: str
    body: Any = None
    text: str = ""
    form: str = ""
    json_patch: Any = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    names: tuple[str, ...] = ()
    ordered: bool = False
    pages: bool = False
    bodies: bool = False


def read(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader=_Text)


def seed() -> list[dict[str, Any]]:
    return read(HERE / "steps" / "seed.yaml")


def steps() -> list[Step]:
    found = [_step(dict(row)) for chapter in CHAPTERS for row in read(HERE / "steps" / f"{chapter}.yaml")]
    assert len({step.name for step in found}) == len(found), "two steps have the same name"
    return found


def _step(row: dict[str, Any]) -> Step:
    verb = next((verb for verb in _VERBS if verb in row), "call")
    path = row.pop(verb)
    method = path if verb == "call" else verb.upper()
    path = row.pop("path") if verb == "call" else path
    names = row.pop("as", ())
    return Step(method=method, path=path, names=(names,) if isinstance(names, str) else tuple(names), **row)
