"""Read platform files: the ones shipped with the package, then a directory that adds to them or overrides them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import yaml

from wardmesh_fhir_proxy.descriptor import Descriptor, Verification
from wardmesh_fhir_proxy.directory_files import directory_files

PROBED = "probed.json"  # what probes of this deployment found, by platform id (`wardmesh platforms check`)


class PlatformFileInvalid(Exception):
    """A platform file cannot be used; the message names the file and the field."""


def load(extra: Path | None = None) -> dict[str, Descriptor]:
    """All platforms by id. A file in `extra` with an existing id is merged over it, field by field."""
    documents = {str(d["id"]): (name, d) for name, d in shipped()}
    for path in yaml_files(extra):
        document = parse(path.name, path.read_bytes())
        identity = str(document.get("id", path.stem))
        earlier = documents.get(identity, ("", {}))[1]
        documents[identity] = (path.name, merge(earlier, {"id": identity, **document}))
    descriptors = {identity: convert(name, document) for identity, (name, document) in documents.items()}
    for identity, found in probed(extra).items():
        if identity in descriptors:
            descriptors[identity] = msgspec.structs.replace(descriptors[identity], verification=found)
    return descriptors


def probed(folder: Path | None) -> dict[str, Verification]:
    """A newer answer than the shipped one, shown with its date."""
    path = folder / PROBED if folder is not None else None
    if path is None or not path.is_file():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Verification])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise PlatformFileInvalid(f"{path.name}: {error}") from error


def shipped() -> list[tuple[str, dict[str, Any]]]:
    folder = resources.files("wardmesh_fhir_proxy") / "platforms"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return [(f.name, parse(f.name, f.read_bytes())) for f in files]


def yaml_files(folder: Path | None) -> list[Path]:
    if folder is None or not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix in {".yaml", ".yml"} and p.is_file())


def parse(name: str, data: bytes) -> dict[str, Any]:
    try:
        document = yaml.load(data, yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise PlatformFileInvalid(f"{name}: not readable as YAML") from error
    if not isinstance(document, dict):
        raise PlatformFileInvalid(f"{name}: must be a mapping of fields")
    return document


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Mappings are merged member by member; everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        earlier = merged.get(key)
        both = isinstance(earlier, dict) and isinstance(value, dict)
        merged[key] = merge(earlier, value) if both else value  # pyright: ignore[reportArgumentType]
    return merged


def convert(name: str, document: dict[str, Any]) -> Descriptor:
    try:
        return msgspec.convert(with_tenant(document), Descriptor)
    except msgspec.ValidationError as error:
        raise PlatformFileInvalid(f"{name}: {error}") from error


def with_tenant(document: dict[str, Any]) -> dict[str, Any]:
    """The same document with `{name}` in its URLs replaced by what `tenant` says; unknown names stay as they are."""
    tenant = document.get("tenant")
    if not isinstance(tenant, dict):
        return document

    def filled(value: object) -> object:
        for name, known in tenant.items() if isinstance(value, str) else ():
            value = str(value).replace("{" + str(name) + "}", str(known))
        return value

    sections = {
        name: {key: filled(value) for key, value in section.items()}
        for name in ("bases", "oauth", "coverage")
        if isinstance(section := document.get(name), dict)
    }
    return document | sections | ({"aud": filled(document["aud"])} if "aud" in document else {})


def fingerprint(folder: Path | None) -> tuple[tuple[str, int, int], ...]:
    """Changes when a file of the directory is added, removed or written; cheap enough to poll."""
    status = [folder / PROBED] if folder is not None and (folder / PROBED).is_file() else []
    stats = [(path.name, path.stat()) for path in (*yaml_files(folder), *directory_files(folder), *status)]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


def version_of(platforms: dict[str, Descriptor], lists: Iterable[str] = ()) -> str:
    """Content hash of the whole catalogue; `lists` name the directories and their days."""
    ordered = ([platforms[identity] for identity in sorted(platforms)], sorted(lists))
    return hashlib.sha256(msgspec.json.encode(ordered)).hexdigest()[:16]
