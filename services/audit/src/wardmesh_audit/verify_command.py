"""`wardmesh-audit verify`: gathers keys, pins and copies, verifies every log, prints and keeps what was found."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from wardmesh_audit import signing, verification_record
from wardmesh_audit.connect import database, nats_as
from wardmesh_audit.findings import CANNOT_VERIFY, VERIFIED, Report, worst
from wardmesh_audit.guard import read_outside
from wardmesh_audit.jetstream import NothingStored, message_at
from wardmesh_audit.locate import Locator, Published
from wardmesh_audit.log_list_check import ListCheck
from wardmesh_audit.note import BadNote, BadSignature, Checkpoint, UnknownKey, Verifier, open_note, parse_checkpoint
from wardmesh_audit.settings import AuditSettings, need
from wardmesh_audit.streams import audit_stream
from wardmesh_audit.verify import Pin, Verification


class NoWitness(Exception):
    """There is nothing that a witness says: none is configured, or none answers."""


class _Copies(Struct):
    """What was kept outside the database: pins, and the leaves as they were published."""

    pins: list[Pin]
    published: Published | None = None


async def verify(args: argparse.Namespace, settings: AuditSettings) -> int:
    """The worst exit code of all logs: 0, 1, 2 or 3."""
    logs = [log_id for log_id in settings.logs if args.log in (None, log_id)]
    if not logs:
        return _obstacle(args, settings.origin, "there is no such log: WARDMESH_AUDIT_LOGS says how many there are")
    if not settings.verifiers():
        return _obstacle(args, settings.origin, "no public key: set WARDMESH_AUDIT_PUBLIC_KEY")
    try:
        pins = _file_pins(args, settings, logs)
    except (UnknownKey, OSError) as error:
        return _obstacle(args, settings.origin, f"the pinned checkpoint cannot be used: {type(error).__name__}")
    except (BadNote, BadSignature) as error:
        return _obstacle(args, settings.origin, f"the pinned checkpoint is no signed checkpoint: {error}")
    codes = [await _one(args, settings, log_id, pins) for log_id in logs]
    if args.log is None:
        codes.append(await _listed(args, settings))
    return worst(codes)


async def _listed(args: argparse.Namespace, settings: AuditSettings) -> int:
    """Every log that was ever listed must be there, whatever the settings say now; told only when one is not."""
    async with database(need("WARDMESH_AUDIT_READER_URL", settings.audit_reader_url)) as conn:
        report = await ListCheck(conn, settings.list_verifiers()).run()
    if not report.findings:
        return VERIFIED
    _print(args, report)
    return report.exit_code


async def _one(args: argparse.Namespace, settings: AuditSettings, log_id: int, pins: list[Pin]) -> int:
    verifiers, started = settings.verifiers(log_id), datetime.now(UTC)
    reader = need("WARDMESH_AUDIT_READER_URL", settings.audit_reader_url)
    ours = [pin for pin in pins if pin.checkpoint.origin == settings.origin_of(log_id)]
    try:
        async with _copies(args, settings, log_id, ours) as copies, database(reader) as conn:
            locator = Locator(conn, copies.published, log_id=log_id)
            run = Verification(
                conn, verifiers, pins=copies.pins, since=args.since, locator=locator, log_id=log_id
            )  # fmt: skip
            report = await run.run()
            newest = await signing.newest(conn, log_id)
    except NoWitness as error:
        return _obstacle(args, settings.origin_of(log_id), str(error))
    _print(args, report)
    if report.exit_code == VERIFIED and newest is not None and newest[0].size <= (report.last_good_checkpoint or 0):
        _keep_pin(_pin_file(settings, log_id), newest[1])
    against = args.against if args.against in _PLACES else "files"
    if why := await verification_record.keep(settings, log_id, report, started, against):
        sys.stderr.write(f"wardmesh-audit: this run is not kept in the ledger: {why}\n")
    return report.exit_code


def _pin_file(settings: AuditSettings, log_id: int) -> Path | None:
    """One file per log: `pin`, `pin.1` and so on."""
    name = settings.audit_pin_file
    return Path(f"{name}.{log_id}" if log_id else name) if name else None


def _keep_pin(file: Path | None, note: str) -> None:
    if file is not None:
        file.write_text(note, encoding="utf-8")


_PLACES = ("db", "stream", "witness")


def _file_pins(args: argparse.Namespace, settings: AuditSettings, logs: Sequence[int]) -> list[Pin]:
    files: list[Path] = []
    if args.from_checkpoint is not None:
        files.append(args.from_checkpoint)
    kept = (_pin_file(settings, log_id) for log_id in logs)
    files += [file for file in kept if file is not None and file.exists()]
    if args.against not in _PLACES:
        files += sorted(file for file in Path(args.against).iterdir() if file.is_file())
    verifiers = [key for log_id in settings.logs for key in settings.verifiers(log_id)]
    return [Pin(_read(file, verifiers), "pinned file") for file in files]


def _read(file: Path, verifiers: list[Verifier]) -> Checkpoint:
    try:
        return parse_checkpoint(open_note(file.read_text(encoding="utf-8"), verifiers))
    except UnicodeDecodeError:
        raise BadNote("not text") from None


@contextlib.asynccontextmanager
async def _copies(
    args: argparse.Namespace, settings: AuditSettings, log_id: int, pins: list[Pin]
) -> AsyncGenerator[_Copies]:
    if args.against == "witness":
        yield _Copies([*pins, await _witness_pin(settings, log_id)])
        return
    if args.against != "stream":
        yield _Copies(pins)
        return
    async with nats_as("audit", settings.nats_url, settings.nats_seed) as nc:
        outside = await read_outside(nc, settings.verifiers(log_id), log_id)
        if outside.checkpoint is not None:
            pins = [*pins, Pin(outside.checkpoint, "stream")]

        async def published(index: int) -> bytes | None:
            try:
                return (await message_at(nc, audit_stream(log_id), index + 1)).data
            except NothingStored:
                return None

        yield _Copies(pins, published)


async def _witness_pin(settings: AuditSettings, log_id: int) -> Pin:
    """What a witness has cosigned. Raises NoWitness: then nothing can be compared."""
    from aiohttp import ClientSession  # noqa: PLC0415 - nothing the other ways to verify need

    from wardmesh_audit.witnesses import Witnesses  # noqa: PLC0415

    if not settings.audit_witnesses:
        raise NoWitness("there is no witness: set WARDMESH_AUDIT_WITNESSES")
    async with ClientSession() as session:
        witnesses = Witnesses(settings.witnesses(), settings.verifiers(log_id), session)
        newest = await witnesses.newest(settings.origin_of(log_id))
    if newest is None:
        raise NoWitness(f"no witness shows a checkpoint of this log: {witnesses.summary()}")
    return Pin(newest, "witness")


def _obstacle(args: argparse.Namespace, log: str, text: str) -> int:
    _print(args, Report(log=log, obstacle=text))
    return CANNOT_VERIFY


def _print(args: argparse.Namespace, report: Report) -> None:
    sys.stdout.write((report.as_json() if args.json else report.as_text()) + "\n")
