"""`wardmesh-fhir-store`: serve (default), migrate, provision, reindex, seed, load."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import uvloop

from wardmesh_common.settings import EXIT_CONFIGURATION, BadSettings, load
from wardmesh_common.telemetry import configure_logging
from wardmesh_fhir_store.app import serve
from wardmesh_fhir_store.feed.stream import STREAM, StreamRefused, provision
from wardmesh_fhir_store.loading import load_files
from wardmesh_fhir_store.migrate import DEFAULT_DATASTORE, migrate_url
from wardmesh_fhir_store.reindexing import reindex
from wardmesh_fhir_store.seeding import seed
from wardmesh_fhir_store.settings import StoreSettings


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wardmesh-fhir-store", description="Embedded FHIR R4 store")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="answer FHIR requests (default)")
    commands.add_parser("migrate", help="bring the database to the newest schema")
    commands.add_parser("provision", help="make the stream of change events, as the broker's operations user")
    commands.add_parser("reindex", help="rebuild the search index while the store serves")
    seeding = commands.add_parser("seed", help="store the demo patients; safe to repeat")
    seeding.add_argument("--patients", type=int, default=50)
    loading = commands.add_parser("load", help="load NDJSON and Bundles; what is loaded already is left out")
    loading.add_argument("paths", nargs="+", type=Path, metavar="DIR|FILE")
    loading.add_argument("--datastore", default=DEFAULT_DATASTORE, metavar="ID")
    loading.add_argument("--errors", type=Path, metavar="FILE", help="NDJSON: an OperationOutcome per refused line")
    return parser


async def _run(arguments: argparse.Namespace, settings: StoreSettings) -> int:
    if arguments.command == "migrate":
        return await migrate_url(settings.database_url)
    if arguments.command == "provision":
        return await _provision(settings)
    if arguments.command == "seed":
        return await seed(settings, arguments.patients)
    if arguments.command == "reindex":
        return await reindex(settings)
    if arguments.command == "load":
        return await load_files(settings, arguments.paths, arguments.datastore, arguments.errors)
    return await serve(settings)


async def _provision(settings: StoreSettings) -> int:
    """Safe to repeat."""
    if not settings.nats_url:
        sys.stderr.write("wardmesh-fhir-store: WARDMESH_NATS_URL is not set\n")
        return EXIT_CONFIGURATION
    try:
        made = await provision(settings.nats_url, settings.operations_seed or settings.nats_seed)
    except StreamRefused as error:
        sys.stderr.write(f"wardmesh-fhir-store: {error}\n")
        return 1
    sys.stdout.write(f"made {STREAM}\n" if made else f"{STREAM} is there and as designed\n")
    return 0


def main() -> int:
    """Exit code 78 for a configuration fault."""
    arguments = _arguments().parse_args()
    try:
        settings = load(StoreSettings, os.environ)
    except BadSettings as error:
        sys.stderr.write(f"wardmesh-fhir-store: {error}\n")
        return EXIT_CONFIGURATION
    # A person reads what a load says: between its lines, log lines are plain too.
    as_json = settings.log_json and arguments.command != "load"
    configure_logging("fhir-store", "fhir-store", settings.log_level, as_json=as_json)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(arguments, settings))


if __name__ == "__main__":
    sys.exit(main())
