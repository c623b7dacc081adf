"""The client files that ship with the documents, and the names that the documents use, are those of the product."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from wardmesh_auth.settings import AuthSettings
from wardmesh_cli import hospital
from wardmesh_cli.layout import PREFERRED_PUBLIC_PORT
from wardmesh_fhir_proxy.platforms_dir import load
from wardmesh_fhir_store.demo.hospital import demo_resources
from wardmesh_gateway.tools import TOOLS

DOCS = Path(__file__).parents[2] / "docs"
FILES = sorted((DOCS / "clients").glob("*.json"))


def server(document: dict[str, Any]) -> dict[str, Any]:
    (section,) = (document[name] for name in ("mcpServers", "servers", "mcp") if name in document)
    return section["fhir-gateway"]


@pytest.mark.requirement("FG-37")
def test_fg37_claude_desktop_and_claude_code_are_configured_with_one_file_each() -> None:
    for name in ("claude-desktop", "claude-code"):
        document = json.loads((DOCS / "clients" / f"{name}.json").read_text())
        assert document["mcpServers"]["fhir-gateway"]["url"] == "http://localhost:8000/mcp/"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_client_file_names_the_gateway_of_the_demo(path: Path) -> None:
    url = urlsplit(server(json.loads(path.read_text()))["url"])
    assert (url.scheme, url.hostname, url.port, url.path) == ("http", "localhost", PREFERRED_PUBLIC_PORT, "/mcp/")


def test_the_page_about_signing_in_names_what_exists() -> None:
    page = (DOCS / "sign-in.md").read_text()
    settings = {name.upper() for name in AuthSettings.__struct_fields__}
    named = set(re.findall(r"`WARDMESH_([A-Z_]+)`", page))
    assert named
    assert named <= settings
    assert set(re.findall(r"`(local-smart-[a-z]+)`", page)) == set(hospital.facts()["platforms"]) <= set(load())
    accounts = hospital.facts()["accounts"]
    assert {"frida", "dana", "peter", "dr_jansen", "dr_quinn"} <= set(accounts)
    tools = {spec.name for spec in TOOLS}
    assert set(re.findall(r"`([a-z]+_[a-z_]+)\(platform_id", page)) <= tools


def test_the_hospital_knows_the_people_of_the_demo_data() -> None:
    names: dict[str, str] = {}
    for resource in demo_resources(datetime(2026, 1, 1, tzinfo=UTC), 50):
        if resource["resourceType"] in {"Patient", "Practitioner"}:
            name = resource["name"][0]
            words = [*name.get("prefix", []), *name["given"], name["family"]]
            names[f"{resource['resourceType']}/{resource['id']}"] = " ".join(words)
    facts = hospital.facts()
    for account in facts["accounts"].values():
        assert names[account["fhirUser"]] == account["name"]
    for identity, name in facts["patients"].items():
        assert names[f"Patient/{identity}"] == name
