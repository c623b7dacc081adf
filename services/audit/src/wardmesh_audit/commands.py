"""The commands of `wardmesh-audit` besides `run`: each returns the exit code of audit.md section 14."""

from __future__ import annotations

import argparse
import asyncio
import sys
import uuid
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from wardmesh_audit import detect_commands, keeping_commands, reading_commands, review_commands
from wardmesh_audit.connect import database, nats_as
from wardmesh_audit.export import export_ndjson, export_tlog
from wardmesh_audit.findings import CANNOT_VERIFY, TAMPERED, VERIFIED
from wardmesh_audit.merkle import verify_consistency
from wardmesh_audit.nodes import MissingLeaves
from wardmesh_audit.note import BadNote, BadSignature, UnknownKey, open_note, parse_checkpoint, parse_vkey
from wardmesh_audit.overview import overview, progress_text
from wardmesh_audit.proof import BadProof, check_proof, parse_proof
from wardmesh_audit.prove import NotThere, consistency, log_of, prove
from wardmesh_audit.settings import AuditSettings, need
from wardmesh_audit.streams import provision
from wardmesh_audit.tail import Hole, follow
from wardmesh_audit.verify_command import verify
from wardmesh_audit.writer import TRANSIENT
from wardmesh_common.settings import BadSettings, load

Command = Callable[[argparse.Namespace, AuditSettings], Awaitable[int]]


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


def as_line(facts: dict[str, Any]) -> str:
    return msgspec.json.encode(facts).decode() + "\n"


def one_log(args: argparse.Namespace, settings: AuditSettings) -> int:
    """Raises BadSettings for a log that this deployment does not have."""
    if args.log not in settings.logs:
        raise BadSettings("there is no such log: WARDMESH_AUDIT_LOGS says how many there are")
    return args.log


async def cmd_migrate(_args: argparse.Namespace, settings: AuditSettings) -> int:
    from wardmesh_audit.migrate import migrate  # noqa: PLC0415 - Alembic takes half a second to import, `verify` needs none

    owner = need("WARDMESH_AUDIT_OWNER_URL", settings.audit_owner_url)
    await migrate(
        owner, settings.audit_keys_owner_url or _as_owner(owner, settings.audit_keys_url), logs=len(settings.logs)
    )
    say("the ledger and the key database are up to date")
    return 0


async def cmd_provision(_args: argparse.Namespace, settings: AuditSettings) -> int:
    async with nats_as("operations", settings.nats_url, settings.operations_seed or settings.nats_seed) as nc:
        made = await provision(nc, settings.streams)
    say("made " + ", ".join(made) if made else "everything is there and as designed")
    return 0


async def cmd_public_key(_args: argparse.Namespace, settings: AuditSettings) -> int:
    for log_id in settings.logs:
        for verifier in settings.verifiers(log_id):
            say(verifier.vkey())
    return 0 if settings.verifiers() else CANNOT_VERIFY


async def cmd_prove(args: argparse.Namespace, settings: AuditSettings) -> int:
    try:
        async with database(need("WARDMESH_AUDIT_READER_URL", settings.audit_reader_url)) as conn:
            log_id = await log_of(conn, args.id)
            proof = await prove(conn, args.id, log_id=log_id)
    except (NotThere, MissingLeaves) as error:
        sys.stderr.write(f"wardmesh-audit: {error}\n")
        return CANNOT_VERIFY
    text = proof.text()
    if args.json:
        hashes = [b64encode(part).decode() for part in proof.hashes]
        text = as_line({"log": log_id, "index": proof.index, "hashes": hashes, "checkpoint": proof.note, "proof": text})
    if args.output is None:
        sys.stdout.write(text)
    else:
        args.output.write_text(text, encoding="utf-8")
    return 0


async def cmd_verify_proof(args: argparse.Namespace, settings: AuditSettings) -> int:
    """Reads one file and one key; opens no connection."""
    try:
        verifiers = [parse_vkey(args.key)] if args.key else settings.verifiers()
        if not verifiers:
            raise UnknownKey("no public key: give --key or WARDMESH_AUDIT_PUBLIC_KEY")
        proof = parse_proof(args.file.read_text(encoding="utf-8"))
        checkpoint = check_proof(proof, verifiers)
    except (UnknownKey, OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"wardmesh-audit: cannot verify: {error if isinstance(error, UnknownKey) else 'no file'}\n")
        return CANNOT_VERIFY
    except (BadProof, BadNote, BadSignature) as error:
        sys.stderr.write(f"wardmesh-audit: not proven: {error}\n")
        return TAMPERED
    say(f"event at index {proof.index} is in {checkpoint.origin} of size {checkpoint.size}")
    return VERIFIED


async def cmd_consistency(args: argparse.Namespace, settings: AuditSettings) -> int:
    verifiers = [key for log_id in settings.logs for key in settings.verifiers(log_id)]
    try:
        old, new = (
            parse_checkpoint(open_note(path.read_text(encoding="utf-8"), verifiers)) for path in (args.old, args.new)
        )
        log_id = next((log for log in settings.logs if settings.origin_of(log) == new.origin), 0)
        async with database(need("WARDMESH_AUDIT_READER_URL", settings.audit_reader_url)) as conn:
            proof = await consistency(conn, old.size, new.size, log_id=log_id) if old.size <= new.size else []
    except (UnknownKey, MissingLeaves, OSError) as error:
        sys.stderr.write(f"wardmesh-audit: cannot verify: {type(error).__name__}\n")
        return CANNOT_VERIFY
    except (BadNote, BadSignature, UnicodeDecodeError) as error:
        sys.stderr.write(f"wardmesh-audit: no signed checkpoint: {type(error).__name__}\n")
        return TAMPERED
    good = old.origin == new.origin and verify_consistency(old.size, new.size, proof, old.root, new.root)
    if args.json:
        parts = [b64encode(part).decode() for part in proof]
        sys.stdout.write(as_line({"consistent": good, "old": old.size, "new": new.size, "proof": parts}))
    else:
        say("consistent" if good else "checkpoint_fork: one is not a continuation of the other")
    return VERIFIED if good else TAMPERED


async def cmd_tail(args: argparse.Namespace, settings: AuditSettings) -> int:
    left, log = args.count, one_log(args, settings)
    try:
        async with nats_as("audit", settings.nats_url, settings.nats_seed) as nc:
            async for event in follow(nc, args.start, log):
                line = event.leaf.decode(errors="replace")
                cursor = f"{log}:{event.index}"
                say(f'{{"cursor":"{cursor}","event":{line}}}' if args.json else f"{cursor} {line}")
                sys.stdout.flush()
                left -= 1
                if left == 0:
                    break
    except Hole as error:
        sys.stderr.write(f"wardmesh-audit: {error}\n")
        return TAMPERED
    return 0


async def cmd_export(args: argparse.Namespace, settings: AuditSettings) -> int:
    from wardmesh_audit.export_formats import FORMATS  # noqa: PLC0415 - pyarrow is nothing the other commands need
    from wardmesh_audit.export_opened import opened_export  # noqa: PLC0415 - as above
    from wardmesh_audit.export_words import WORDED  # noqa: PLC0415 - as above

    export = {"ndjson": export_ndjson, "tlog": export_tlog, **FORMATS, **WORDED}[args.format]
    log = one_log(args, settings)
    if args.open or args.by:
        return await opened_export(args, settings, log)
    try:
        async with database(need("WARDMESH_AUDIT_READER_URL", settings.audit_reader_url)) as conn:
            size = await export(conn, args.directory, log_id=log)
    except (NotThere, MissingLeaves) as error:
        sys.stderr.write(f"wardmesh-audit: {error}\n")
        return CANNOT_VERIFY
    if args.json:
        sys.stdout.write(as_line({"log": log, "format": args.format, "events": size, "directory": str(args.directory)}))
    else:
        say(f"{size} events")
    return 0


async def cmd_verify_copy(args: argparse.Namespace, settings: AuditSettings) -> int:
    """Reads one directory and one key; opens no connection."""
    from wardmesh_audit.parquet import BadCopy, verify_copy  # noqa: PLC0415 - as above

    verifiers = [parse_vkey(args.key)] if args.key else settings.verifiers()
    try:
        if not verifiers:
            raise UnknownKey("no public key: give --key or WARDMESH_AUDIT_PUBLIC_KEY")
        if not args.directory.is_dir():
            raise UnknownKey("there is no such directory")
        manifest = verify_copy(args.directory, verifiers)
    except UnknownKey as error:
        sys.stderr.write(f"wardmesh-audit: cannot verify: {error}\n")
        return CANNOT_VERIFY
    except (BadCopy, BadNote, BadSignature) as error:
        sys.stderr.write(f"wardmesh-audit: tampered: {error}\n")
        return TAMPERED
    say(f"{manifest.last + 1} events are exactly what was signed")
    return VERIFIED


async def cmd_status(args: argparse.Namespace, settings: AuditSettings) -> int:
    """The same facts as `/v1/status`, of every log."""
    async with database(need("WARDMESH_AUDIT_READER_URL", settings.audit_reader_url)) as conn:
        found = [log for log in (await overview(conn, {})).logs if log.log in settings.logs]
        count = "select count(*) from event where log_id = $1 and event_type = 'malformed'"
        malformed = {log.log: await conn.fetchval(count, log.log) for log in found}
    for log in found:
        if args.json:
            facts = msgspec.to_builtins(log, str_keys=True) | {"malformed": malformed[log.log]}
            sys.stdout.write(as_line(facts))
            continue
        ended = log.last_verification
        verified = (
            f"exit {ended.exit_code} at size {ended.size}, {ended.ended_at:%Y-%m-%d %H:%M} UTC" if ended else "never"
        )
        say(f"{settings.origin_of(log.log)}: size {log.size} root {log.root}")
        say(f"  checkpoint {log.checkpoint_size or 'none'}, cosigned {log.cosigned_size or 'none'}")
        say(f"  verified {verified}")
        if log.verifying is not None:
            say(f"  background {progress_text(log.verifying)}")
        say(f"  malformed {malformed[log.log]}")
    return 0


COMMANDS: Mapping[str, Command] = {
    "migrate": cmd_migrate,
    "provision": cmd_provision,
    "public-key": cmd_public_key,
    "verify": verify,
    "prove": cmd_prove,
    "verify-proof": cmd_verify_proof,
    "consistency": cmd_consistency,
    "tail": cmd_tail,
    "export": cmd_export,
    "verify-copy": cmd_verify_copy,
    "status": cmd_status,
    **keeping_commands.COMMANDS,
    **reading_commands.COMMANDS,
    **detect_commands.COMMANDS,
    **review_commands.COMMANDS,
}


def perform(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Runs one command; an unreachable database or bus is `cannot verify`, never a stack trace. Raises BadSettings."""
    settings = load(AuditSettings, environ)
    try:
        return asyncio.run(_perform(COMMANDS[args.command], args, settings))
    except TRANSIENT as error:
        sys.stderr.write(f"wardmesh-audit: no access: {type(error).__name__}\n")
        return CANNOT_VERIFY


async def _perform(command: Command, args: argparse.Namespace, settings: AuditSettings) -> int:
    return await command(args, settings)


def _as_owner(owner_url: str, keys_url: str) -> str:
    """The key database with the login of the owner URL, so that one owner login is enough for small sites."""
    if not keys_url:
        return ""
    login, at, _ = urlsplit(owner_url).netloc.rpartition("@")
    parts = urlsplit(keys_url)
    return urlunsplit(parts._replace(netloc=login + at + parts.netloc.rpartition("@")[2]))


def event_id(text: str) -> uuid.UUID:
    return uuid.UUID(text)


def path(text: str) -> Path:
    return Path(text)
