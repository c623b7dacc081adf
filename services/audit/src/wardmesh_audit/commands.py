"""The commands of `wardmesh-audit` besides `run`: each returns the exit code of audit.md section 14."""

from __future__ import annotations

import argparse
import asyncio
import sys
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from wardmesh_audit import detect_commands, keeping_commands, reading_commands, signing
from wardmesh_audit.connect import database, nats_as
from wardmesh_audit.export import export_ndjson, export_tlog
from wardmesh_audit.findings import CANNOT_VERIFY, TAMPERED, VERIFIED
from wardmesh_audit.merkle import verify_consistency
from wardmesh_audit.nodes import MissingLeaves
from wardmesh_audit.note import BadNote, BadSignature, UnknownKey, open_note, parse_checkpoint, parse_vkey
from wardmesh_audit.proof import BadProof, check_proof, parse_proof
from wardmesh_audit.prove import NotThere, consistency, prove
from wardmesh_audit.settings import AuditSettings, need
from wardmesh_audit.streams import provision
from wardmesh_audit.tail import Hole, follow
from wardmesh_audit.verify_command import verify
from wardmesh_audit.writer import TRANSIENT
from wardmesh_common.settings import load

Command = Callable[[argparse.Namespace, AuditSettings], Awaitable[int]]


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


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
    for verifier in settings.verifiers():
        say(verifier.vkey())
    return 0 if settings.verifiers() else CANNOT_VERIFY


async def cmd_prove(args: argparse.Namespace, settings: AuditSettings) -> int:
    try:
        async with database(need("WARDMESH_AUDIT_READER_URL", settings.audit_reader_url)) as conn:
            proof = await prove(conn, args.id)
    except (NotThere, MissingLeaves) as error:
        sys.stderr.write(f"wardmesh-audit: {error}\n")
        return CANNOT_VERIFY
    if args.output is None:
        sys.stdout.write(proof.text())
    else:
        args.output.write_text(proof.text(), encoding="utf-8")
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
    verifiers = settings.verifiers()
    try:
        old, new = (
            parse_checkpoint(open_note(path.read_text(encoding="utf-8"), verifiers)) for path in (args.old, args.new)
        )
        async with database(need("WARDMESH_AUDIT_READER_URL", settings.audit_reader_url)) as conn:
            proof = await consistency(conn, old.size, new.size) if old.size <= new.size else []
    except (UnknownKey, MissingLeaves, OSError) as error:
        sys.stderr.write(f"wardmesh-audit: cannot verify: {type(error).__name__}\n")
        return CANNOT_VERIFY
    except (BadNote, BadSignature) as error:
        sys.stderr.write(f"wardmesh-audit: {error}\n")
        return TAMPERED
    good = old.origin == new.origin and verify_consistency(old.size, new.size, proof, old.root, new.root)
    say("consistent" if good else "checkpoint_fork: one is not a continuation of the other")
    return VERIFIED if good else TAMPERED


async def cmd_tail(args: argparse.Namespace, settings: AuditSettings) -> int:
    left = args.count
    try:
        async with nats_as("audit", settings.nats_url, settings.nats_seed) as nc:
            async for event in follow(nc, args.start):
                line = event.leaf.decode(errors="replace")
                say(f'{{"cursor":"0:{event.index}","event":{line}}}' if args.json else f"0:{event.index} {line}")
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

    export = {"ndjson": export_ndjson, "tlog": export_tlog, **FORMATS}[args.format]
    try:
        async with database(need("WARDMESH_AUDIT_READER_URL", settings.audit_reader_url)) as conn:
            size = await export(conn, args.directory)
    except (NotThere, MissingLeaves) as error:
        sys.stderr.write(f"wardmesh-audit: {error}\n")
        return CANNOT_VERIFY
    say(f"{size} events")
    return 0


async def cmd_verify_copy(args: argparse.Namespace, settings: AuditSettings) -> int:
    """Reads one directory and one key; opens no connection."""
    from wardmesh_audit.parquet import BadCopy, verify_copy  # noqa: PLC0415 - as above

    verifiers = [parse_vkey(args.key)] if args.key else settings.verifiers()
    try:
        if not verifiers:
            raise UnknownKey("no public key: give --key or WARDMESH_AUDIT_PUBLIC_KEY")
        manifest = verify_copy(args.directory, verifiers)
    except UnknownKey as error:
        sys.stderr.write(f"wardmesh-audit: cannot verify: {error}\n")
        return CANNOT_VERIFY
    except (BadCopy, BadNote, BadSignature) as error:
        sys.stderr.write(f"wardmesh-audit: tampered: {error}\n")
        return TAMPERED
    say(f"{manifest.last + 1} events are exactly what was signed")
    return VERIFIED


async def cmd_status(_args: argparse.Namespace, settings: AuditSettings) -> int:
    async with database(need("WARDMESH_AUDIT_READER_URL", settings.audit_reader_url)) as conn:
        size, root = await signing.tree(conn)
        newest = await signing.newest(conn)
        malformed = await conn.fetchval("select count(*) from event where event_type = 'malformed'")
    say(f"size {size} root {root.hex()}")
    say(f"checkpoint {newest[0].size if newest else 'none'}")
    say(f"malformed {malformed}")
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
