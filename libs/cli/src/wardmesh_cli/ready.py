"""The ready file: every address, process and demo credential as one JSON object, always written as a whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from wardmesh_cli import hospital, identity
from wardmesh_cli.engines import PEOPLE
from wardmesh_cli.layout import DATABASES, DEPLOYMENT, STORE_PLATFORM, Layout
from wardmesh_cli.services import audit_settings, store_settings
from wardmesh_cli.supervisor import Supervisor


def describe(layout: Layout, supervisor: Supervisor, tokens: dict[str, str]) -> dict[str, Any]:
    """What every user of the mesh needs first; below it what tests and tools need."""
    return {
        "gateway": layout.public_url,
        "mcp": f"{layout.public_url}/mcp",
        "issuer": layout.issuer,
        "hospital": {"issuer": layout.smart_issuer, "base": layout.smart_base, **_hospital(layout)},
        "store": layout.store_url,
        "store_platform": STORE_PLATFORM,
        "nats": layout.nats_url,
        "postgres": layout.database("postgres"),
        "conformance": f"http://127.0.0.1:{layout.conformance_port}/mcp" if layout.conformance_port else "",
        "people": _people(tokens),
        "processes": {"wardmesh": [os.getpid()], **supervisor.pids()},
        "audit_public_key": layout.audit_public_key(),
        **_addresses(layout, supervisor),
        **_places(layout),
    }


def _hospital(layout: Layout) -> dict[str, Any]:
    """Who can sign in there, and the client that has a secret."""
    found = hospital.facts()
    password = found["password"]
    accounts = {name: {"password": password, **account} for name, account in found["accounts"].items()}
    secret = layout.state.secret(hospital.CLIENT_SECRET).read_text()
    return {"accounts": accounts, "clients": found["clients"], "client_secret": secret}


def _people(tokens: dict[str, str]) -> dict[str, dict[str, Any]]:
    return {
        person.name: {
            "password": person.password,
            "role": person.role,
            "roles": person.roles,
            "token": tokens.get(person.name, ""),
        }
        for person in identity.people(PEOPLE)
    }


def _addresses(layout: Layout, supervisor: Supervisor) -> dict[str, Any]:
    agent_secret = layout.state.secret("idp-agent.secret").read_text()
    return {
        "audience": layout.audience,
        "gateways": [f"http://127.0.0.1:{replica.port}" for replica in layout.of("gateway")],
        "admin": {
            child.unit.name: f"http://127.0.0.1:{child.unit.admin_port}"
            for child in supervisor.children.values()
            if child.unit.admin_port
        },
        "nats_monitor": f"http://127.0.0.1:{layout.nats_http_port}",
        "cerbos": f"unix:{layout.cerbos_socket}",
        "cerbos_http": f"http://127.0.0.1:{layout.cerbos_http_port}",
        "databases": {
            name: layout.database(name) for name in (*DATABASES.values(), "wardmesh_audit", "wardmesh_audit_keys")
        },
        "clients": {
            "public": {"client_id": identity.CLIENT_ID},
            "agent": {"client_id": identity.agent_id(PEOPLE), "client_secret": agent_secret},
        },
    }


def _places(layout: Layout) -> dict[str, Any]:
    return {
        "audit_environment": {
            **audit_settings(layout),
            "WARDMESH_DEPLOYMENT": DEPLOYMENT,
            "WARDMESH_NATS_URL": layout.nats_url,
            "WARDMESH_NATS_SEED_FILE": str(layout.state.nats_seed("audit")),
        },
        "store_environment": store_settings(layout),
        "state": str(layout.state.root),
        "logs": str(layout.state.logs),
        "platforms_dir": str(layout.state.platforms),
        "secrets": str(layout.state.private("secrets")),
        "control": str(layout.state.control_socket),
        "s3_folder": str(layout.state.private("s3")),
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Atomic, and readable by us only: it holds tokens."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        json.dump(content, out, indent=1)
        out.write("\n")
    draft.replace(path)
