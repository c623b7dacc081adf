"""Units of the embedded engines: PostgreSQL, NATS, Cerbos and the development identity provider."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from wardmesh_cli import recipes
from wardmesh_cli.account import give, public_directory, reachable
from wardmesh_cli.binaries import Binaries, EngineMissingError, package_directory
from wardmesh_cli.child import Unit
from wardmesh_cli.layout import Layout, nats_config
from wardmesh_cli.probes import http_ok

PEOPLE = Path(__file__).parent / "idp" / "people.json"


def postgres(layout: Layout, binaries: Binaries) -> Unit:
    """Also creates the cluster, which takes a second or two."""
    data = layout.state.engine_data("postgres")
    recipes.prepare_postgres(binaries, data, durable=True)
    recipe = recipes.postgres(binaries, data, layout.postgres_port, durable=True)

    async def ready(pid: int) -> bool:
        return recipes.postgres_ready(data, pid)

    return Unit(
        name="postgres",
        group="postgres",
        command=recipe.command,
        environ=recipe.environ,
        cwd=data,
        ready=ready,
        ports=(layout.postgres_port,),
        engine=True,
        stop_signal=signal.SIGINT,  # fast shutdown: do not wait for clients
        last_signal=signal.SIGINT,
        stop_seconds=15,
    )


def nats(layout: Layout, binaries: Binaries) -> Unit:
    store = layout.state.engine_data("nats")
    config = _readable(nats_config(), "nats.conf")
    recipe = recipes.nats(binaries, config, layout.nats_port, layout.nats_http_port, store)

    async def ready(_pid: int) -> bool:
        return await http_ok(layout.nats_http_port, "/healthz?js-enabled-only=true")

    return Unit(
        name="nats",
        group="nats",
        command=recipe.command,
        environ={**recipe.environ, **layout.state.nats_public_keys()},
        cwd=store,
        ready=ready,
        ports=(layout.nats_port, layout.nats_http_port),
        engine=True,
        stop_signal=signal.SIGINT,  # SIGTERM would end in code 1
    )


def cerbos(layout: Layout, binaries: Binaries) -> Unit:
    home = layout.cerbos_socket.parent
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    home.chmod(0o755)
    policies = policy_directory()
    if not reachable(policies):
        policies = _copied(policies, layout)
    address = f"unix:{layout.cerbos_socket}"
    recipe = recipes.cerbos(binaries, home, policies, address, layout.cerbos_http_port, watch=True)

    async def ready(_pid: int) -> bool:
        return await http_ok(layout.cerbos_http_port, "/_cerbos/health")

    return Unit(
        name="cerbos",
        group="cerbos",
        command=recipe.command,
        environ=recipe.environ,
        cwd=home,
        ready=ready,
        ports=(layout.cerbos_http_port,),
        engine=True,
    )


def identity_provider(layout: Layout, binaries: Binaries) -> Unit:
    environ = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "WARDMESH_IDP_ISSUER": layout.issuer,
        "WARDMESH_IDP_PORT": str(layout.idp_port),
        "WARDMESH_IDP_STATE": str(layout.state.private("idp")),
        "WARDMESH_IDP_PEOPLE": str(PEOPLE),
        "WARDMESH_IDP_AGENT_SECRET_FILE": str(layout.state.secret("idp-agent.secret")),
        "WARDMESH_NODE_MODULES": str(binaries.node_modules()),
        "WARDMESH_AUDIENCE": layout.audience,
    }

    async def ready(_pid: int) -> bool:
        return await http_ok(layout.idp_port, "/healthz")

    return Unit(
        name="idp",
        group="idp",
        command=[str(binaries.node()), str(PEOPLE.parent / "server.mjs")],
        environ=environ,
        cwd=layout.state.private("idp"),
        ready=ready,
        ports=(layout.idp_port,),
    )


def policy_directory() -> Path:
    replaced = os.environ.get("WARDMESH_POLICIES", "")
    package = package_directory("wardmesh_policy")
    policies = Path(replaced) if replaced else package / "policies" if package else None
    if policies is None or not policies.is_dir():
        raise EngineMissingError("the policies are missing: wardmesh-policy is not installed with its policies")
    return policies


def _readable(path: Path, name: str) -> Path:
    """The file itself, or a copy where the engines' account can read it."""
    if reachable(path):
        return path
    copy = public_directory("config") / name
    copy.write_bytes(path.read_bytes())
    copy.chmod(0o644)
    return copy


def _copied(policies: Path, layout: Layout) -> Path:
    copy = layout.state.sockets / "policies"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(policies, copy)
    give(copy)
    return copy
