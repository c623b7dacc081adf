"""Lists of organisations as files: `<vendor>.directory.jsonl`, a header and one line per organisation."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from wardmesh_fhir_proxy.descriptor import callable_url

SUFFIX = ".directory.jsonl"


class Header(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the list comes from and of which day it is; shown with every entry of it (B-20)."""

    vendor: str
    source: str
    listed_on: str
    entries: int


class Organisation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    name: str
    base: str
    city: str = ""
    state: str = ""
    postal: str = ""
    aliases: tuple[str, ...] = ()


class DirectoryList(Struct, frozen=True):
    header: Header
    organisations: tuple[Organisation, ...]
    digest: str = ""  # of the file


class DirectoryFileInvalid(Exception):
    """A list cannot be used; the message names the file and the line."""


_headers = msgspec.json.Decoder(Header)
_rows = msgspec.json.Decoder(Organisation)


def directory_files(folder: Path | None) -> list[Path]:
    if folder is None or not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIX) and path.is_file())


def read(path: Path) -> DirectoryList:
    """Raises DirectoryFileInvalid for a line that cannot be read, an address nobody may call, or a wrong count."""
    content = path.read_bytes()
    lines = content.splitlines()
    try:
        header = _headers.decode(lines[0] if lines else b"")
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DirectoryFileInvalid(f"{path.name}: line 1 is not the header of a list") from error
    rows: list[Organisation] = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            row = _rows.decode(line)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise DirectoryFileInvalid(f"{path.name}: line {number} is not an organisation") from error
        if not callable_url(row.base):
            raise DirectoryFileInvalid(f"{path.name}: line {number} has an address that is not https")
        rows.append(row)
    if len(rows) != header.entries:
        raise DirectoryFileInvalid(f"{path.name}: {header.entries} entries announced, {len(rows)} found")
    return DirectoryList(header, tuple(rows), hashlib.sha256(content).hexdigest())


def write(folder: Path, header: Header, rows: list[Organisation]) -> Path:
    """Replaces the vendor's list as a whole; a reader never sees half of it."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{header.vendor}{SUFFIX}"
    draft = target.with_suffix(".new")
    encode = msgspec.json.encode
    with draft.open("wb") as file:
        file.writelines(line + b"\n" for line in (encode(header), *(encode(row) for row in rows)))
        file.flush()
        os.fsync(file.fileno())
    return draft.replace(target)
