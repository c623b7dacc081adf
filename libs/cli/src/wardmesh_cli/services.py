"""Units of our own services and the tasks that prepare their databases and streams."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from wardmesh_cli.child import Ready, Unit
from wardmesh_cli.directory import FEED
from wardmesh_cli.engines import PEOPLE
from wardmesh_cli.faults import ProcessFault
from wardmesh_cli.hospital import client_ids
from wardmesh_cli.identity import people
from wardmesh_cli.layout import DATABASES, DEPLOYMENT, WITNESS, Layout, Replica
from wardmesh_cli.listeners import Listeners
from wardmesh_cli.passing import passes, without_instead
from wardmesh_cli.probes import http_ok
from wardmesh_cli.supervisor import Task

# What the caller's environment passes on; everything else a service gets is said here.
_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "TZ")
_MOST_LOGS = 4  # the witness knows the names of all that a deployment may have
_PASSED_PREFIXES = ("OTEL_",)
_DATASTORE_SETTINGS = ("AWS_", "HEALTHLAKE_")  # credentials too: they are fhir-proxy's alone (HL-16)
_PLATFORM_SECRETS = ("WARDMESH_PLATFORM_", "FHIR_GATEWAY_PLATFORM_")


def program(service: str) -> str:
    """The service's console script, beside our own Python."""
    path = Path(sys.executable).parent / f"wardmesh-{service}"
    if not path.exists():
        raise ProcessFault(f"wardmesh-{service} is not installed: run `make setup`", [])
    return str(path)


class Services:
    """Builds units and tasks for one layout; `settings` are extra variables per service."""

    def __init__(
        self, layout: Layout, settings: dict[str, dict[str, str]], platforms: Path, listeners: Listeners
    ) -> None:
        self._layout = layout
        self._listeners = listeners
        self._settings = settings
        self._platforms = platforms
        state = layout.state
        self._specific: dict[str, dict[str, str]] = {
            "gateway": {
                "WARDMESH_HOST": "127.0.0.1",
                "WARDMESH_PUBLIC_URL": layout.public_url,
                "WARDMESH_ISSUER": layout.issuer,
                "WARDMESH_AUDIENCE": layout.audience,
                "WARDMESH_GATEWAY_KEYS_FILE": str(state.ring("gateway.keys")),
                "WARDMESH_TRUSTED_PROXY_CIDRS": "127.0.0.1/32" if layout.balancer_admin_port else "none",
            },
            "auth": {
                "WARDMESH_PUBLIC_URL": layout.public_url,
                "WARDMESH_ISSUER": layout.issuer,
                "WARDMESH_AUDIENCE": layout.audience,
                "WARDMESH_DATABASE_URL": layout.database(DATABASES["auth"], "wardmesh_auth"),
                "WARDMESH_MASTER_KEY_FILE": str(state.secret("auth-master.key")),
                "SECRET_KEY_FILE": str(state.secret("local-accounts.key")),
                "WARDMESH_ACCOUNTS_FILE": str(state.secret("accounts.json", demo_accounts)),
                "WARDMESH_TOKEN_SEAL_KEY_FILE": str(state.secret("token-seal.key")),
            },
            "policy": {"WARDMESH_CERBOS_TARGET": f"unix:{layout.cerbos_socket}"},
            "fhir-proxy": {
                "WARDMESH_TOKEN_SEAL_KEY_FILE": str(state.secret("token-seal.key")),
                "WARDMESH_CURSOR_KEYS_FILE": str(state.ring("cursor.keys")),
                "WARDMESH_PLATFORMS_DIR": str(platforms),
                "WARDMESH_AUDIT_SPOOL_DIR": str(state.private("spool")),
            },
            "audit": audit_settings(layout),
            "fhir-store": store_settings(layout),
        }

    def environ(self, service: str) -> dict[str, str]:
        found = {
            name: value
            for name, value in os.environ.items()
            if name in _PASSED
            or name.startswith(_PASSED_PREFIXES)
            or self._platform_setting(service, name)
            or passes(service, name)
        }
        found.update(
            WARDMESH_DEPLOYMENT=DEPLOYMENT,
            WARDMESH_ADMIN_HOST="127.0.0.1",
            WARDMESH_LOG_JSON="true",
            PYTHONUNBUFFERED="1",
        )
        found["WARDMESH_NATS_URL"] = self._layout.nats_url
        found["WARDMESH_NATS_SEED_FILE"] = str(self._layout.state.nats_seed(service))
        local = {name: value for name, value in client_ids().items() if self._platform_setting(service, name)}
        return {**without_instead({**found, **self._specific[service], **local}), **self._settings.get(service, {})}

    @staticmethod
    def _platform_setting(service: str, name: str) -> bool:
        """Only auth may see a platform's secret; the gateway sees which platforms have a client id (AR-6)."""
        if name.startswith(_DATASTORE_SETTINGS):
            return service == "fhir-proxy"
        if not name.startswith(_PLATFORM_SECRETS):
            return False
        return service == "auth" or (service == "gateway" and "_CLIENT_ID" in name)

    def unit(self, replica: Replica) -> Unit:
        """A replica behind the balancer has no twin: it is taken out of the balancer while it restarts."""
        environ = self.environ(replica.service)
        public = tuple(filter(None, (replica.port, replica.conformance_port)))
        if replica.port:
            environ["WARDMESH_PORT"] = str(replica.port)
        if replica.conformance_port:
            environ["WARDMESH_CONFORMANCE_PORT"] = str(replica.conformance_port)
        alone = not (replica.port and self._layout.balancer_admin_port)
        unit = Unit(
            name=replica.name,
            group=replica.service,
            command=[program(replica.service)],
            environ=environ,
            ready=readiness(replica.admin_port),
            ports=public,
            listeners=self._listeners.bind(*public) if alone else {},
            stop_seconds=30,
        )
        return _with_admin(unit, replica.admin_port, replica.spare_admin_port if alone else 0)

    def store(self) -> Unit:
        layout = self._layout
        unit = Unit(
            name="fhir-store",
            group="fhir-store",
            command=[program("fhir-store")],
            environ=self.environ("fhir-store"),
            ready=readiness(layout.store_admin_port),
            ports=(layout.store_port,),
            listeners=self._listeners.bind(layout.store_port),
        )
        return _with_admin(unit, layout.store_admin_port, layout.store_spare_admin_port)

    def witness(self) -> Unit:
        """Knows the ledger's public key and nothing else of the mesh: no bus, no database, none of its secrets."""
        layout = self._layout
        environ = {name: value for name, value in os.environ.items() if name in _PASSED}
        environ |= {
            "PYTHONUNBUFFERED": "1",
            "WARDMESH_WITNESS_NAME": WITNESS,
            "WARDMESH_WITNESS_KEY_FILE": str(layout.state.secret("witness.key")),
            "WARDMESH_WITNESS_STORE": str(layout.state.private("witness") / "store.sqlite3"),
            "WARDMESH_WITNESS_LOGS": " ".join(layout.audit_public_key(log) for log in range(_MOST_LOGS)),
            "WARDMESH_WITNESS_PORT": str(layout.witness_port),
        }
        return Unit(
            name="witness",
            group="witness",
            command=[program("audit"), "witness", "run"],
            environ=environ,
            ready=readiness(layout.witness_port),
            ports=(layout.witness_port,),
        )

    def balancer(self) -> Unit:
        """Spreads requests over the gateway's replicas; both public listeners in one process."""
        layout = self._layout
        gateways = layout.of("gateway")
        command = [sys.executable, "-m", "wardmesh_cli.balancer", "--admin", str(layout.balancer_admin_port)]
        command += ["--listen", _listener(layout.public_port, [(each.port, each.admin_port) for each in gateways])]
        if layout.conformance_port:
            inner = [(each.conformance_port, each.admin_port) for each in gateways]
            command += ["--listen", _listener(layout.conformance_port, inner)]
        return Unit(
            name="balancer",
            group="balancer",
            command=command,
            environ={"PATH": os.environ.get("PATH", ""), "PYTHONUNBUFFERED": "1"},
            ready=readiness(layout.balancer_admin_port),
            ports=tuple(filter(None, (layout.public_port, layout.conformance_port, layout.balancer_admin_port))),
            admin_port=layout.balancer_admin_port,
        )

    def task(self, name: str, service: str, *arguments: str) -> Task:
        environ = self.environ(service)
        if arguments == ("provision",):
            seed = self._layout.state.nats_seed("operations")
            environ["WARDMESH_OPERATIONS_SEED_FILE"] = str(seed)
        return Task(name=name, command=[program(service), *arguments], environ=environ)


def store_settings(layout: Layout) -> dict[str, str]:
    """Also what `wardmesh store ...` needs. What is s3:// elsewhere is a folder here (HL-10)."""
    folder = layout.state.private("s3")
    return {
        "WARDMESH_DATABASE_URL": layout.database(DATABASES["fhir-store"], "wardmesh_fhir_store"),
        "WARDMESH_NATS_URL": layout.nats_url,  # what a command stores is told as well
        "WARDMESH_HOST": "127.0.0.1",
        "WARDMESH_PORT": str(layout.store_port),
        "WARDMESH_SMART_BASE": layout.smart_base,
        "WARDMESH_SMART_ISSUER": layout.smart_issuer,
        "WARDMESH_S3_FOLDER": str(folder),
        "WARDMESH_FILE_ROOTS": json.dumps([str(folder)]),
        "WARDMESH_BULK_URL": (folder / "bulk-export").as_uri(),
    }


def _with_admin(unit: Unit, port: int, spare: int) -> Unit:
    """The unit with its health on this port, and with a twin on the spare one, if there is one."""
    environ = {**unit.environ, "WARDMESH_ADMIN_PORT": str(port)}
    if unit.listeners:
        environ["WARDMESH_LISTEN_FDS"] = json.dumps(unit.listeners)
    ports = (*unit.ports, port)
    twin = _with_admin(unit, spare, 0) if spare else None
    return replace(unit, environ=environ, ready=readiness(port), ports=ports, admin_port=port, twin=twin)


def demo_accounts() -> str:
    """The six accounts of SH-1 as local ones: the people of the identity provider whose role is a hospital's."""
    staff = [person for person in people(PEOPLE) if person.role[0].isupper()]
    return json.dumps([{"username": each.name, "password": each.password, "roles": each.roles} for each in staff])


def audit_settings(layout: Layout) -> dict[str, str]:
    """Also what `wardmesh audit ...` needs, the owner's rights included."""
    state, name = layout.state, "wardmesh_audit"
    witness = {"url": f"http://127.0.0.1:{layout.witness_port}", "vkey": layout.witness_public_key()}
    return {
        "WARDMESH_AUDIT_OWNER_URL": layout.database(name),
        "WARDMESH_AUDIT_KEYS_OWNER_URL": layout.database("wardmesh_audit_keys"),
        "WARDMESH_AUDIT_WRITER_URL": layout.database(name, "audit_writer"),
        "WARDMESH_AUDIT_SIGNER_URL": layout.database(name, "audit_signer"),
        "WARDMESH_AUDIT_READER_URL": layout.database(name, "audit_reader"),
        "WARDMESH_AUDIT_REPORT_URL": layout.database(name, "audit_report"),
        "WARDMESH_AUDIT_OFFICER_URL": layout.database(name, "audit_officer"),
        "WARDMESH_AUDIT_DETECT_URL": layout.database(name, "audit_detect"),
        "WARDMESH_AUDIT_RETENTION_URL": layout.database(name, "audit_retention"),
        "WARDMESH_AUDIT_SHREDDER_URL": layout.database("wardmesh_audit_keys", "key_shredder"),
        "WARDMESH_AUDIT_ROLES": json.dumps(["writer", "publisher", "keys", "api", "detect", "retention", "verify"]),
        "WARDMESH_AUDIT_EXPORT_DIR": str(state.root / "audit-exports"),
        "WARDMESH_AUDIT_KEYS_URL": layout.database("wardmesh_audit_keys", "key_user"),
        "WARDMESH_AUDIT_SIGNING_KEY_FILE": str(state.secret("audit-signing.key")),
        "WARDMESH_AUDIT_PUBLIC_KEY": layout.audit_public_key(),
        "WARDMESH_AUDIT_PIN_FILE": str(state.root / "audit.pin"),
        "WARDMESH_AUDIT_WITNESSES": json.dumps({WITNESS: witness}),
        "WARDMESH_AUDIT_KEK_FILE": str(state.secret("audit.kek")),
        "WARDMESH_AUDIT_HANDLE_KEY_FILE": str(state.secret("audit-handle.key")),
        "WARDMESH_AUDIT_DIRECTORY_DIR": str(state.private(FEED)),
        "WARDMESH_AUDIT_DIRECTORY_KEY_FILE": str(state.secret("audit-directory.key")),
    }


def _listener(port: int, replicas: list[tuple[int, int]]) -> str:
    return f"{port}=" + ",".join(f"{inner}:{admin}" for inner, admin in replicas)


def readiness(admin_port: int) -> Ready:
    async def ready(_pid: int) -> bool:
        return await http_ok(admin_port, "/readyz")

    return ready
