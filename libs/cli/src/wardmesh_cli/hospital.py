"""The local hospital: a SMART authorization server of the demo, and what the other parts have to know of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from wardmesh_cli.binaries import Binaries
from wardmesh_cli.child import Unit
from wardmesh_cli.layout import Layout, coverage_services
from wardmesh_cli.probes import http_ok

HOSPITAL = Path(__file__).parent / "idp" / "smart.json"
CLIENT_SECRET = "smart-client.secret"  # noqa: S105 - the name of a file


def facts() -> dict[str, Any]:
    """Accounts, patients, clients and platforms, from the file that the server reads too."""
    return json.loads(HOSPITAL.read_text())


def client_ids() -> dict[str, str]:
    """Variables that tell which client we are at which platform of the hospital (FG-17)."""
    found = facts()
    return {
        f"WARDMESH_PLATFORM_{platform.upper().replace('-', '_')}_CLIENT_ID": found["clients"][kind]
        for platform, kind in found["platforms"].items()
    }


def descriptors(layout: Layout) -> dict[str, dict[str, Any]]:
    """The addresses of the hospital's platforms; everything else is in their files of the catalogue."""
    endpoints = {"authorize_url": f"{layout.smart_issuer}/auth", "token_url": f"{layout.smart_issuer}/token"}
    payer = coverage_services(layout.store_url)
    return {
        platform: {"id": platform, "bases": {"patient": layout.smart_base}, "oauth": endpoints, "coverage": payer}
        for platform in facts()["platforms"]
    }


def server(layout: Layout, binaries: Binaries, settings: dict[str, str]) -> Unit:
    environ = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "WARDMESH_SMART_ISSUER": layout.smart_issuer,
        "WARDMESH_SMART_BASE": layout.smart_base,
        "WARDMESH_SMART_PORT": str(layout.smart_port),
        "WARDMESH_SMART_STATE": str(layout.state.private("hospital")),
        "WARDMESH_SMART_HOSPITAL": str(HOSPITAL),
        "WARDMESH_SMART_CLIENT_SECRET_FILE": str(layout.state.secret(CLIENT_SECRET)),
        "WARDMESH_NODE_MODULES": str(binaries.node_modules()),
        "WARDMESH_PUBLIC_URL": layout.public_url,
        **settings,
    }

    async def ready(_pid: int) -> bool:
        return await http_ok(layout.smart_port, "/healthz")

    return Unit(
        name="hospital",
        group="hospital",
        command=[str(binaries.node()), str(HOSPITAL.parent / "smart_server.mjs")],
        environ=environ,
        cwd=layout.state.private("hospital"),
        ready=ready,
        ports=(layout.smart_port,),
    )
