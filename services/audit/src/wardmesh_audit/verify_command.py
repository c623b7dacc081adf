"""`wardmesh-audit verify`: gathers keys, pins and copies, runs one verification, prints it, keeps the new pin."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from msgspec import Struct

from wardmesh_audit import signing
from wardmesh_audit.connect import database, nats_as
from wardmesh_audit.findings import CANNOT_VERIFY, VERIFIED, Report
from wardmesh_audit.guard import read_outside
from wardmesh_audit.jetstream import NothingStored, message_at
from wardmesh_audit.locate import Locator, Published
from wardmesh_audit.note import BadNote, BadSignature, Checkpoint, UnknownKey, Verifier, open_note, parse_checkpoint
from wardmesh_audit.settings import AuditSettings, need
from wardmesh_audit.streams import AUDIT
from wardmesh_audit.verify import Pin, Verification


class _Copies(Struct):
    """What was kept outside the database: pins, and the leaves as they were published."""

    pins: list[Pin]
    published: Published | None = None


async def verify(args: argparse.Namespace, settings: AuditSettings) -> int:
    """Exit code 0, 1, 2 or 3."""
    verifiers = settings.verifiers()
    if not verifiers:
        return _obstacle(args, settings.origin, "no public key: set WARDMESH_AUDIT_PUBLIC_KEY")
    try:
        pins = _file_pins(args, settings, verifiers)
    except (UnknownKey, OSError) as error:
        return _obstacle(args, settings.origin, f"the pinned checkpoint cannot be used: {type(error).__name__}")
    except (BadNote, BadSignature) as error:
        return _obstacle(args, settings.origin, f"the pinned checkpoint is no signed checkpoint: {error}")
    reader = need("WARDMESH_AUDIT_READER_URL", settings.audit_reader_url)
    async with _copies(args, settings, verifiers, pins) as copies, database(reader) as conn:
        locator = Locator(conn, copies.published)
        run = Verification(conn, verifiers, pins=copies.pins, since=args.since, locator=locator)
        report = await run.run()
        newest = await signing.newest(conn)
    _print(args, report)
    if report.exit_code == VERIFIED and newest is not None and newest[0].size <= (report.last_good_checkpoint or 0):
        _keep_pin(settings.audit_pin_file, newest[1])
    return report.exit_code


def _keep_pin(file: str, note: str) -> None:
    if file:
        Path(file).write_text(note, encoding="utf-8")


def _file_pins(args: argparse.Namespace, settings: AuditSettings, verifiers: list[Verifier]) -> list[Pin]:
    files: list[Path] = []
    if args.from_checkpoint is not None:
        files.append(args.from_checkpoint)
    if settings.audit_pin_file and Path(settings.audit_pin_file).exists():
        files.append(Path(settings.audit_pin_file))
    if args.against not in ("db", "stream", "witness"):
        files += sorted(file for file in Path(args.against).iterdir() if file.is_file())
    return [Pin(_read(file, verifiers), "pinned file") for file in files]


def _read(file: Path, verifiers: list[Verifier]) -> Checkpoint:
    try:
        return parse_checkpoint(open_note(file.read_text(encoding="utf-8"), verifiers))
    except UnicodeDecodeError:
        raise BadNote("not text") from None


@contextlib.asynccontextmanager
async def _copies(
    args: argparse.Namespace, settings: AuditSettings, verifiers: list[Verifier], pins: list[Pin]
) -> AsyncGenerator[_Copies]:
    if args.against == "witness":
        yield _Copies([*pins, await _witness_pin(settings, verifiers)])
        return
    if args.against != "stream":
        yield _Copies(pins)
        return
    async with nats_as("audit", settings.nats_url, settings.nats_seed) as nc:
        outside = await read_outside(nc, verifiers)
        if outside.checkpoint is not None:
            pins = [*pins, Pin(outside.checkpoint, "stream")]

        async def published(index: int) -> bytes | None:
            try:
                return (await message_at(nc, AUDIT, index + 1)).data
            except NothingStored:
                return None

        yield _Copies(pins, published)


async def _witness_pin(settings: AuditSettings, verifiers: list[Verifier]) -> Pin:
    """What a witness has cosigned. Raises OSError when none answers: then nothing can be compared."""
    from aiohttp import ClientSession  # noqa: PLC0415 - nothing the other ways to verify need

    from wardmesh_audit.witnesses import Witnesses  # noqa: PLC0415

    async with ClientSession() as session:
        newest = await Witnesses(settings.witnesses(), verifiers, session).newest(settings.origin)
    if newest is None:
        raise ConnectionError("no witness answered")
    return Pin(newest, "witness")


def _obstacle(args: argparse.Namespace, log: str, text: str) -> int:
    _print(args, Report(log=log, obstacle=text))
    return CANNOT_VERIFY


def _print(args: argparse.Namespace, report: Report) -> None:
    sys.stdout.write((report.as_json() if args.json else report.as_text()) + "\n")
