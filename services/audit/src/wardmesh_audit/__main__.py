"""Entry point of `wardmesh-audit`: the service with `run`, and the commands of compliance people."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

from wardmesh_audit import detect_commands, keeping_commands, reading_commands, review_commands
from wardmesh_audit.commands import event_id, path, perform
from wardmesh_audit.findings import USAGE
from wardmesh_audit.settings import AuditSettings
from wardmesh_common.settings import EXIT_CONFIGURATION, BadSettings, load

EXIT_REFUSED = 70  # EX_SOFTWARE: a role refused to go on


class _Parser(argparse.ArgumentParser):
    """A typo must not look like a gap in the ledger: wrong usage ends with 64, not with argparse's 2."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def _instant(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog="wardmesh-audit", description="The append-only, provable record of every call")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    service = commands.add_parser("run", help="run the service (default)")
    service.add_argument("--roles", help="comma-separated, instead of WARDMESH_AUDIT_ROLES")
    commands.add_parser("migrate", help="bring the databases to the newest schema")
    commands.add_parser("provision", help="make the JetStream streams and check them")
    commands.add_parser("public-key", help="print the verifier key of the log")
    commands.add_parser("status", help="size, checkpoint and last verification").add_argument(
        "--json", action="store_true"
    )
    verify = commands.add_parser("verify", help="recompute and compare everything")
    verify.add_argument("--json", action="store_true")
    verify.add_argument("--since", type=_instant, help="check leaves recorded since then; older ones by their hash")
    verify.add_argument("--from-checkpoint", type=path, metavar="FILE", help="a checkpoint kept outside")
    verify.add_argument("--against", default="db", metavar="db|stream|witness|DIR", help="what to compare with")
    verify.add_argument("--log", type=int, metavar="N", help="one log; without it all of them")
    witness = commands.add_parser("witness", help="run a witness: a process of its own that cosigns checkpoints")
    witness.add_argument("action", choices=("run", "public-key"), nargs="?", default="run")
    _add_proofs(commands)
    _add_copies(commands)
    keeping_commands.add_parsers(commands)
    reading_commands.add_parsers(commands)
    detect_commands.add_parsers(commands)
    review_commands.add_parsers(commands)
    return top


def _add_copies(commands: Any) -> None:
    tail = commands.add_parser("tail", help="follow the AUDIT stream")
    tail.add_argument("--start", type=int, default=-10, help="first index; negative: so many before the end")
    tail.add_argument("--count", type=int, default=0, help="stop after so many events")
    tail.add_argument("--json", action="store_true")
    tail.add_argument("--log", type=int, default=0, metavar="N")
    export = commands.add_parser("export", help="write a copy that verifies alone")
    export.add_argument("directory", type=path)
    formats = ("ndjson", "tlog", "parquet", "ocsf", "balp", "smedrec", "fhir-audit")
    export.add_argument("--format", choices=formats, default="ndjson")
    export.add_argument("--open", action="store_true", help="smedrec, fhir-audit: with ids, which are sealed")
    export.add_argument("--by", default="", metavar="PERSON", help="with --open: who reads; it is recorded")
    export.add_argument("--log", type=int, default=0, metavar="N")
    export.add_argument("--json", action="store_true")
    copy = commands.add_parser("verify-copy", help="check an NDJSON or Parquet copy offline")
    copy.add_argument("directory", type=path)
    copy.add_argument("--key", metavar="VKEY")


def _add_proofs(commands: Any) -> None:
    prove = commands.add_parser("prove", help="write a tlog-proof of one event")
    prove.add_argument("id", type=event_id)
    prove.add_argument("--json", action="store_true")
    prove.add_argument("-o", "--output", type=path)
    check = commands.add_parser("verify-proof", help="check a tlog-proof offline")
    check.add_argument("file", type=path)
    check.add_argument("--key", metavar="VKEY")
    consistency = commands.add_parser("consistency", help="check that one checkpoint continues another")
    consistency.add_argument("old", type=path)
    consistency.add_argument("new", type=path)
    consistency.add_argument("--json", action="store_true")


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.command in (None, "run"):
        return _run(getattr(args, "roles", None))
    if args.command == "witness":
        from wardmesh_audit import witness_server  # noqa: PLC0415 - an HTTP server is nothing the other commands need

        return witness_server.main(args.action, os.environ)
    try:
        return perform(args, os.environ)
    except BadSettings as error:
        sys.stderr.write(f"wardmesh-audit: {error}\n")
        return EXIT_CONFIGURATION
    except BrokenPipeError:
        return 0


def _run(roles: str | None) -> int:
    # The commands need neither the bus nor the service around it, and should answer at once.
    from wardmesh_audit.app import Stopped, create_app  # noqa: PLC0415
    from wardmesh_common.service import run  # noqa: PLC0415

    try:
        return run("audit", lambda: _settings(roles), create_app)
    except Stopped as error:
        sys.stderr.write(f"wardmesh-audit: stopped: {error}\n")
        return EXIT_REFUSED


def _settings(roles: str | None) -> AuditSettings:
    settings = load(AuditSettings, os.environ)
    if roles is not None:
        settings.audit_roles = tuple(role.strip() for role in roles.split(","))
    return settings


if __name__ == "__main__":
    sys.exit(main())
