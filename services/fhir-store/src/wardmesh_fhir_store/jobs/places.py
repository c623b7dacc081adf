"""Where jobs read and write: file:// below allowed folders, s3:// as a local folder or as S3 itself."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from msgspec import Struct

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
SUFFIXES = (".ndjson", ".json")
NOT_THERE = "There is nothing to read at the input."
UNREADABLE = "The input cannot be read."
UNWRITABLE = "The output cannot be written."


class BadPlace(Exception):
    """A URL that jobs may not use, or one that does not answer; the message does not repeat it."""


class Source(Struct, frozen=True):
    """One input file; a change of the fingerprint tells that it is not the file that a job began with."""

    url: str
    size: int
    fingerprint: str


class Storage(Protocol):
    """One kind of place. Everything here blocks and runs in threads. Raises BadPlace."""

    def check(self, url: str) -> None:
        """Whether the URL may be used at all."""
        ...

    def sources(self, url: str) -> list[Source]:
        """The file, or every NDJSON and JSON file below, in one order."""
        ...

    def open(self, url: str, position: int) -> BinaryIO:
        """A reader that begins at this byte."""
        ...

    def put(self, url: str, body: bytes) -> None:
        """The whole file at once: others see all of it or nothing."""
        ...

    def remove(self, url: str) -> None:
        """Also when it is not there."""
        ...


class Files:
    """`file://` below one of the roots; links that lead out of them are not followed."""

    def __init__(self, roots: list[Path]) -> None:
        self._roots = [root.resolve() for root in roots]

    def path(self, url: str) -> Path:
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or "\x00" in unquote(parts.path):
            raise BadPlace("The file URL must be of the form file:///folder/file.")
        path = Path(unquote(parts.path)).resolve()
        if not any(path.is_relative_to(root) for root in self._roots):
            raise BadPlace("The file URL leads outside the folders that jobs may use.")
        return path

    def check(self, url: str) -> None:
        self.path(url)

    def sources(self, url: str) -> list[Source]:
        path = self.path(url)
        if path.is_file():
            return [_source(path, path.as_uri())]
        return [_source(found, found.as_uri()) for found in _below(path)]

    def open(self, url: str, position: int) -> BinaryIO:
        return _opened(self.path(url), position)

    def put(self, url: str, body: bytes) -> None:
        _write(self.path(url), body)

    def remove(self, url: str) -> None:
        self.path(url).unlink(missing_ok=True)


class Folder:
    """`s3://bucket/key` as the file `bucket/key` of one folder: what a laptop has instead of S3."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def path(self, url: str) -> Path:
        bucket, key = bucket_and_key(url)
        path = (self._folder / bucket / key).resolve()
        if not path.is_relative_to(self._folder / bucket):
            raise BadPlace("The S3 URL leads outside its bucket.")
        return path

    def check(self, url: str) -> None:
        self.path(url)

    def sources(self, url: str) -> list[Source]:
        path = self.path(url)
        if path.is_file():
            return [_source(path, url)]
        bucket = bucket_and_key(url)[0]
        root = self._folder / bucket
        return [_source(found, f"s3://{bucket}/{found.relative_to(root).as_posix()}") for found in _below(path)]

    def open(self, url: str, position: int) -> BinaryIO:
        return _opened(self.path(url), position)

    def put(self, url: str, body: bytes) -> None:
        _write(self.path(url), body)

    def remove(self, url: str) -> None:
        self.path(url).unlink(missing_ok=True)


class Places:
    """Chooses by the scheme; a scheme that nobody configured is refused."""

    def __init__(self, storages: dict[str, Storage]) -> None:
        self._storages = storages

    def storage(self, url: str) -> Storage:
        storage = self._storages.get(url.partition("://")[0])
        if storage is None:
            raise BadPlace("Jobs read and write the URLs that this store was configured for, file:// or s3://.")
        return storage

    def check(self, url: str) -> None:
        """Raises BadPlace."""
        self.storage(url).check(url)


def bucket_and_key(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket) or "\x00" in key or ".." in key.split("/"):
        raise BadPlace("The S3 URL must be of the form s3://bucket/prefix.")
    return bucket, key


def join(url: str, *names: str) -> str:
    return "/".join((url.rstrip("/"), *names))


def _below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.suffix in SUFFIXES and path.is_file() and path.resolve().is_relative_to(folder):
            yield path


def _source(path: Path, url: str) -> Source:
    found = path.stat()
    return Source(url, found.st_size, f"{found.st_size}-{found.st_mtime_ns}")


def _opened(path: Path, position: int) -> BinaryIO:
    try:
        reader = path.open("rb")
    except OSError:
        raise BadPlace(UNREADABLE) from None
    reader.seek(position)
    return reader


def _write(path: Path, body: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as out:
            out.write(body)
            out.flush()
            os.fsync(out.fileno())
        draft.rename(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise BadPlace(UNWRITABLE) from None
