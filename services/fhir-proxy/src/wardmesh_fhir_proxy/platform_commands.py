"""`wardmesh platforms ...`: look up, probe, import a vendor's list. Works on the files that fhir-proxy watches."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp
import msgspec

from wardmesh_common.errors import WardmeshError
from wardmesh_common.questions import Ask, Candidate, DirectoryQuestion
from wardmesh_fhir_proxy import directory_files, platforms_dir
from wardmesh_fhir_proxy.catalogue import Platforms
from wardmesh_fhir_proxy.descriptor import Descriptor
from wardmesh_fhir_proxy.endpoint_bundles import BundleInvalid, read_bundle
from wardmesh_fhir_proxy.finding import Finder
from wardmesh_fhir_proxy.probing import Probe, Prober, today

USAGE, NOTHING, INVALID = 64, 1, 65
COMMANDS = ("list", "search", "check", "import")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog="wardmesh platforms", description="The platforms and organisations that can be asked.")
    top.add_argument("--json", action="store_true", help="for machines")
    commands = top.add_subparsers(dest="command", required=True, parser_class=_Parser)
    commands.add_parser("list", help="the catalogue, with the status of each platform")
    search = commands.add_parser("search", help="platforms and organisations by name, alias, payer id, city or state")
    search.add_argument("text", nargs="+")
    search.add_argument("--state", default="", help="two letters")
    search.add_argument("--limit", type=int, default=10)
    check = commands.add_parser("check", help="ask platforms for their metadata, politely, and note what answered")
    check.add_argument("ids", nargs="*", help="platforms or organisations; none = every platform with an address")
    imports = commands.add_parser("import", help="take over a vendor's Bundle of endpoints")
    imports.add_argument("vendor", help="the platform id of the vendor, for example epic")
    imports.add_argument("file", type=Path)
    imports.add_argument("--source", required=True, help="where the list was published")
    imports.add_argument("--listed-on", default=today(), help="day of the list, YYYY-MM-DD")
    return top


def main(arguments: list[str]) -> int:
    """Exit codes: 0 done, 1 nothing found or nothing answered, 64 usage, 65 unusable file."""
    asked = parser().parse_args(arguments)
    folder = os.environ.get("WARDMESH_PLATFORMS_DIR", "")
    try:
        platforms = Platforms(Path(folder) if folder else None)
        if asked.command == "list":
            return _list(platforms, as_json=asked.json)
        if asked.command == "search":
            return asyncio.run(_search(platforms, asked))
        if not folder:
            raise platforms_dir.PlatformFileInvalid("WARDMESH_PLATFORMS_DIR is not set: there is no place to write to")
        if asked.command == "check":
            return asyncio.run(_check(platforms, Path(folder), asked.ids, as_json=asked.json))
        return _import(platforms, Path(folder), asked)
    except (platforms_dir.PlatformFileInvalid, BundleInvalid, OSError) as error:
        print(f"  ✗ {error}", file=sys.stderr)  # noqa: T201
        return INVALID


def _list(platforms: Platforms, *, as_json: bool) -> int:
    facts = sorted(platforms.facts().platforms, key=lambda each: each.id)
    rows = [
        {
            "id": each.id,
            "name": each.name,
            "verification_status": each.verification_status,
            "verified_on": each.verified_on,
            "organisations": each.organisations,
        }
        for each in facts
    ]
    _show(rows, ("id", "verification_status", "verified_on", "organisations", "name"), as_json=as_json)
    return 0


async def _search(platforms: Platforms, asked: argparse.Namespace) -> int:
    question = DirectoryQuestion(text=" ".join(asked.text), state=asked.state, limit=asked.limit)
    try:
        answer = await Finder(platforms).answer(question, Ask(id="", sent_at=0.0, remaining_ms=0))
    except WardmeshError as error:
        print(f"  ✗ {error.problem.detail}", file=sys.stderr)  # noqa: T201
        return USAGE
    rows = [_row(each) for each in answer.candidates]
    _show(rows, ("platform", "verification_status", "city", "state", "name", "listed_on"), as_json=asked.json)
    return 0 if rows else NOTHING


def _row(candidate: Candidate) -> dict[str, object]:
    return {name: getattr(candidate, name) for name in candidate.__struct_fields__}


async def _check(platforms: Platforms, folder: Path, ids: list[str], *, as_json: bool) -> int:
    try:
        wanted: list[Descriptor] = [platforms.descriptors.get(name) or platforms.tenant(name) for name in ids]
    except WardmeshError as error:
        print(f"  ✗ {error.problem.detail}", file=sys.stderr)  # noqa: T201
        return USAGE
    found: list[Probe] = []
    async with aiohttp.ClientSession() as http:
        await Prober(http).all(wanted or list(platforms.descriptors.values()), found.append)
    day = today()
    known = {**platforms_dir.probed(folder), **{each.platform: each.verification(day) for each in found}}
    draft = folder / f"{platforms_dir.PROBED}.new"
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(known), indent=1) + b"\n")
    draft.replace(folder / platforms_dir.PROBED)
    rows = [
        {
            "id": each.platform,
            "verification_status": each.verification(day).status,
            "metadata_status": each.metadata_status,
            "fhir_version": each.fhir_version,
            "smart": each.smart,
        }
        for each in sorted(found, key=lambda each: each.platform)
    ]
    _show(rows, ("id", "verification_status", "metadata_status", "fhir_version", "smart"), as_json=as_json)
    return 0 if any(each.metadata_status for each in found) else NOTHING


def _import(platforms: Platforms, folder: Path, asked: argparse.Namespace) -> int:
    if asked.vendor not in platforms.descriptors:
        print(f"  ✗ {asked.vendor[:64]} is not a platform of the catalogue", file=sys.stderr)  # noqa: T201
        return USAGE
    found = read_bundle(asked.file.read_bytes())
    if not found.rows:
        raise BundleInvalid("the Bundle holds no endpoint that can be used")
    header = directory_files.Header(
        vendor=asked.vendor, source=asked.source, listed_on=asked.listed_on, entries=len(found.rows)
    )
    path = directory_files.write(folder, header, found.rows)
    said = {"vendor": asked.vendor, "organisations": len(found.rows), "left_out": found.left_out, "file": path.name}
    _show([said], tuple(said), as_json=asked.json)
    return 0


def _show(rows: Sequence[Mapping[str, object]], columns: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=1))  # noqa: T201
        return
    for row in rows:
        print("  " + "  ".join(str(row[name] if row[name] != "" else "-") for name in columns))  # noqa: T201
