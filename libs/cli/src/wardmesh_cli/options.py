"""The command line of `wardmesh`, parsed into plain values."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

SERVICES = ("gateway", "auth", "policy", "fhir-proxy", "audit")
DEFAULT_STATE = ".wardmesh"
# Commands that become a program of a service, which explains itself.
_PROGRAMS = {
    "audit": "wardmesh-audit with the keys of the running mesh",
    "store": "load resources into the store of the running mesh",
    "platforms": "list, search, probe and import platforms",
}


@dataclass(frozen=True)
class UpOptions:
    """What `up` and `demo` were asked for."""

    state: Path
    reset: bool = False
    port: int = 0
    replicas: dict[str, int] = field(default_factory=dict[str, int])
    platforms: dict[str, str] = field(default_factory=dict[str, str])
    conformance: bool = False
    ready_file: Path | None = None
    settings: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])


def _replicas(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        name, _, count = part.partition("=")
        if name not in SERVICES or not count.isdigit() or not 1 <= int(count) <= 16:
            raise argparse.ArgumentTypeError(f"expected {{{'|'.join(SERVICES)}}}=1..16, separated by commas")
        found[name] = int(count)
    return found


def _platform(text: str) -> tuple[str, str]:
    name, _, url = text.partition("=")
    parts = urlsplit(url)
    if not re.fullmatch(r"[a-z][a-z0-9-]+", name) or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise argparse.ArgumentTypeError("expected ID=URL, as in store2=http://127.0.0.1:9000/fhir")
    return name, url.rstrip("/")


def _setting(text: str) -> tuple[str, str, str]:
    found = re.fullmatch(r"([a-z-]+):([A-Z0-9_]+)=(.*)", text, re.DOTALL)
    if found is None:
        raise argparse.ArgumentTypeError("expected SERVICE:VARIABLE=VALUE, as in gateway:WARDMESH_RATE_LIMIT=1000")
    return found[1], found[2], found[3]


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError("expected a port number")
    return int(text)


class Parser(argparse.ArgumentParser):
    """Usage errors end with 64: 2 would read like `audit verify` saying incomplete."""

    def error(self, message: str) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.print_usage()
        self.exit(64, f"{self.prog}: {message}\n")


def parser() -> Parser:
    top = Parser(prog="wardmesh", description="The mesh on one machine.")
    commands = top.add_subparsers(dest="command", required=True, parser_class=Parser)
    up = commands.add_parser("up", help="start everything and stay up until Ctrl-C")
    demo = commands.add_parser("demo", help="start everything and show an allowed, a masked and a refused call")
    demo.add_argument("--once", action="store_true", help="end after the show; 0 only if all went as told")
    for command in (up, demo):
        _add_up(command)
    status = commands.add_parser("status", help="processes, health, ports, size of the ledger")
    status.add_argument("--json", action="store_true", help="for machines")
    stdio = commands.add_parser("stdio", help="an MCP server on standard input and output, in front of a gateway")
    stdio.add_argument("--url", default="http://localhost:8000", help="the gateway")
    stdio.add_argument("--profile", default="", help="offer only these tools, as /mcp/<profile> does: healthlake, …")
    stdio.add_argument("--readonly", action="store_true", help="offer and call only tools that change nothing")
    stdio.add_argument("--allowed-tools", type=_names, default=(), metavar="NAME,...", help="only these tools")
    for name, text in _PROGRAMS.items():
        handed_on = commands.add_parser(name, help=text, add_help=False)
        handed_on.add_argument("-h", "--help", action="store_true", dest="program_help", help="what the program says")
        handed_on.add_argument("arguments", nargs=argparse.REMAINDER)
    controls = {
        "restart": "one replica after the other, the new process ready before the old one ends",
        "stop": "stop and leave stopped",
        "start": "start again what was stopped",
        "kill": "SIGKILL, as a crash would",
        "freeze": "SIGSTOP",
        "thaw": "SIGCONT",
    }
    for name, text in controls.items():
        commands.add_parser(name, help=text).add_argument("name", help="a process or all replicas of a service")
    for command in commands.choices.values():
        command.add_argument(
            "--state", type=Path, default=Path(os.environ.get("WARDMESH_STATE", DEFAULT_STATE)), help="state directory"
        )
    return top


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or not all(re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", name) for name in names):
        raise argparse.ArgumentTypeError("expected names of tools, separated by commas")
    return names


def _add_up(command: argparse.ArgumentParser) -> None:
    command.add_argument("--reset", action="store_true", help="forget data, keys and ports of earlier starts")
    command.add_argument(
        "--port",
        type=_port,
        default=os.environ.get("FHIR_GATEWAY_PORT") or 0,
        help="public port (default 8000, or another if taken)",
    )
    command.add_argument("--replicas", type=_replicas, default={}, metavar="SERVICE=N,...")
    command.add_argument(
        "--platform", type=_platform, action="append", default=[], metavar="ID=URL", help="an open FHIR server"
    )
    command.add_argument("--conformance", action="store_true", help="anonymous loopback listener with fixtures")
    command.add_argument("--ready-file", type=Path, help="JSON with every URL, process and credential, once ready")
    command.add_argument(
        "--set", type=_setting, action="append", default=[], metavar="SERVICE:VARIABLE=VALUE", dest="settings"
    )


def up_options(arguments: argparse.Namespace) -> UpOptions:
    settings: dict[str, dict[str, str]] = {}
    for service, variable, value in arguments.settings:
        settings.setdefault(service, {})[variable] = value
    return UpOptions(
        state=arguments.state,
        reset=arguments.reset,
        port=arguments.port,
        replicas=arguments.replicas,
        platforms=dict(arguments.platform),
        conformance=arguments.conformance,
        ready_file=arguments.ready_file,
        settings=settings,
    )
