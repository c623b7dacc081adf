"""Where everything of one start listens and lives, decided before the first process starts."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode, urlsafe_b64decode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardmesh_cli.binaries import checkout, package_directory
from wardmesh_cli.options import SERVICES, UpOptions
from wardmesh_cli.state import PortBook, State

STORE_PLATFORM = "store"
DATASTORES = "healthlake"  # the platform behind which the embedded store's datastores lie
DEPLOYMENT = "local"
WITNESS = "local/witness"
_LOG_KEY, _WITNESS_KEY = b"\x01", b"\x04"
PREFERRED_PUBLIC_PORT = 8000
DATABASES = {"auth": "wardmesh_auth", "fhir-store": "wardmesh_fhir_store"}


@dataclass(frozen=True, kw_only=True)
class Replica:
    """One process of a service."""

    name: str
    service: str
    admin_port: int
    spare_admin_port: int
    port: int = 0
    conformance_port: int = 0


@dataclass(frozen=True, kw_only=True)
class Layout:
    state: State
    nats_port: int
    nats_http_port: int
    postgres_port: int
    cerbos_http_port: int
    idp_port: int
    smart_port: int
    store_port: int
    store_admin_port: int
    store_spare_admin_port: int
    witness_port: int
    public_port: int
    balancer_admin_port: int  # 0: one gateway replica listens on the public port itself
    conformance_port: int  # 0: off
    replicas: list[Replica] = field(default_factory=list[Replica])
    ports: PortBook

    @property
    def public_url(self) -> str:
        return f"http://localhost:{self.public_port}"

    @property
    def audience(self) -> str:
        return f"{self.public_url}/mcp"

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.idp_port}"

    @property
    def smart_issuer(self) -> str:
        return f"http://127.0.0.1:{self.smart_port}"

    @property
    def smart_base(self) -> str:
        return f"http://127.0.0.1:{self.store_port}/smart/fhir"

    @property
    def store_url(self) -> str:
        return f"http://127.0.0.1:{self.store_port}/fhir"

    @property
    def nats_url(self) -> str:
        return f"nats://127.0.0.1:{self.nats_port}"

    @property
    def cerbos_socket(self) -> Path:
        return self.state.engine_data("cerbos") / "pdp.sock" if self._short else self.state.sockets / "cerbos/pdp.sock"

    @property
    def _short(self) -> bool:
        return len(str(self.state.root)) < 60

    def database(self, name: str, user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.postgres_port}/{name}"

    def of(self, service: str) -> list[Replica]:
        return [replica for replica in self.replicas if replica.service == service]

    def audit_public_key(self, log: int = 0) -> str:
        """Verifier key of a log's checkpoints: name+id+key, as `wardmesh-audit --key` takes it."""
        return _verifier_key(f"{DEPLOYMENT}/audit/{log}", self.state.secret("audit-signing.key"), _LOG_KEY)

    def witness_public_key(self) -> str:
        return _verifier_key(WITNESS, self.state.secret("witness.key"), _WITNESS_KEY)


def _verifier_key(name: str, secret: Path, kind: bytes) -> str:
    """`name+id+base64` of C2SP's signed notes."""
    text = secret.read_text().strip()
    seed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    public = kind + Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    key_id = hashlib.sha256(name.encode() + b"\n" + public).digest()[:4].hex()
    return f"{name}+{key_id}+{b64encode(public).decode()}"


def _replicas(book: PortBook, options: UpOptions, public: int, conformance: int) -> list[Replica]:
    """Every process of every service; a gateway alone listens on the public port itself."""
    balanced = options.replicas.get("gateway", 1) > 1
    replicas: list[Replica] = []
    for service in SERVICES:
        count = options.replicas.get(service, 1)
        for number in range(1, count + 1):
            name = f"{service}-{number}"
            gateway = service == "gateway"
            replicas.append(
                Replica(
                    name=name,
                    service=service,
                    admin_port=book.take(f"{name} admin"),
                    spare_admin_port=book.take(f"{name} spare admin"),
                    port=(book.take(name) if balanced else public) if gateway else 0,
                    conformance_port=(book.take(f"{name} conformance") if balanced else conformance)
                    if gateway and conformance
                    else 0,
                )
            )
    return replicas


def lay_out(state: State, options: UpOptions) -> Layout:
    """Take ports and write the platform overrides. Raises PortTakenFault."""
    book = PortBook(state.root / "ports.json")
    public = book.take("gateway", preferred=PREFERRED_PUBLIC_PORT, only=options.port)
    conformance = book.take("conformance") if options.conformance else 0
    balanced = options.replicas.get("gateway", 1) > 1
    replicas = _replicas(book, options, public, conformance)
    return Layout(
        state=state,
        nats_port=book.take("nats"),
        nats_http_port=book.take("nats monitor"),
        postgres_port=book.take("postgres"),
        cerbos_http_port=book.take("cerbos"),
        idp_port=book.take("identity provider"),
        smart_port=book.take("hospital"),
        store_port=book.take("fhir-store"),
        store_admin_port=book.take("fhir-store admin"),
        store_spare_admin_port=book.take("fhir-store spare admin"),
        witness_port=book.take("witness"),
        public_port=public,
        balancer_admin_port=book.take("balancer admin") if balanced else 0,
        conformance_port=conformance,
        replicas=replicas,
        ports=book,
    )


def write_platforms(layout: Layout, platforms: dict[str, str], local: dict[str, dict[str, Any]]) -> Path:
    """One descriptor per platform that fhir-proxy should reach at an address of this machine (JSON is YAML).

    `platforms` are addresses of open servers, `local` whole descriptors.
    """
    folder = layout.state.platforms
    addresses = {STORE_PLATFORM: layout.store_url, **platforms}
    datastores = {"id": DATASTORES, "healthlake": {"endpoint": layout.store_url.removesuffix("/fhir")}}
    wanted = {DATASTORES: datastores, **local, **{name: _descriptor(name, url) for name, url in addresses.items()}}
    for stale in folder.glob("*.yaml"):
        if stale.stem not in wanted:
            stale.unlink()
    for name, descriptor in wanted.items():
        draft = folder / f"{name}.new"
        draft.write_text(json.dumps(descriptor, indent=1) + "\n")
        draft.rename(folder / f"{name}.yaml")
    return folder


def _descriptor(name: str, url: str) -> dict[str, Any]:
    """What we say about a platform; an id of the catalogue keeps its own name, type and openness."""
    said: dict[str, Any] = {
        "id": name,
        "bases": {"patient": url},
        "fhir_version": "R4",
        "auth": {"method": "none"},
        "live": True,
        "writes": True,
    }
    package = package_directory("wardmesh_fhir_proxy")
    if name == STORE_PLATFORM:
        said |= {"name": "Wardmesh embedded store", "type": "sandbox", "open": False}
        said |= {"coverage": coverage_services("base")}
    elif package is None or not (package / "platforms" / f"{name}.yaml").exists():
        said |= {"name": name, "type": "sandbox", "open": False}
    return said


def coverage_services(base: str) -> dict[str, str]:
    """The store answers for its payers at a FHIR base: CRD, DTR and rules (FG-10)."""
    return {"crd_url": base, "dtr_url": base, "rules_url": base}


def nats_config() -> Path:
    """The permissions file; it is not part of any package, so it needs a checkout."""
    tree = checkout()
    path = tree / "deploy" / "nats" / "nats.conf" if tree else Path("deploy/nats/nats.conf")
    if not path.is_file():
        raise FileNotFoundError("deploy/nats/nats.conf is missing: run wardmesh from a checkout")
    return path
