"""The state directory: data of the engines, secrets, ports and logs, kept from one start to the next."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import nkeys

from wardmesh_cli.account import give, public_directory, reachable
from wardmesh_cli.faults import PortTakenFault, StateInUseFault
from wardmesh_cli.ports import EPHEMERAL, free_port, is_free, reserve

NATS_USERS = ("gateway", "auth", "policy", "fhir-proxy", "audit", "fhir-store", "operations")


def new_key() -> str:
    """32 random bytes in base64url."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")


def new_seed() -> str:
    return nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER).decode()


class State:
    """One state directory; `lock` makes us its only user."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._name = hashlib.sha256(str(self.root).encode()).hexdigest()[:10]
        self._held: TextIO | None = None

    def lock(self) -> None:
        """Raises StateInUseFault when another supervisor works here."""
        self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
        held = (self.root / "lock").open("a+")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.seek(0)
            owner = held.read().strip() or "?"
            held.close()
            raise StateInUseFault(
                f"{self.root} is in use by process {owner}: stop it or choose another --state"
            ) from None
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        self._held = held

    def unlock(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def reset(self) -> None:
        """Removes everything but the lock we hold."""
        for entry in self.root.iterdir():
            if entry.name == "lock":
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        shutil.rmtree(self.sockets, ignore_errors=True)
        if self._outside().is_dir():
            shutil.rmtree(self._outside())

    def _outside(self) -> Path:
        return public_directory("data") / self._name

    @property
    def sockets(self) -> Path:
        """A short path of our own: a unix socket's name must fit into 107 bytes."""
        return public_directory(f"run-{self._name}")

    @property
    def ready_file(self) -> Path:
        return self.root / "ready.json"

    @property
    def control_socket(self) -> Path:
        return self.sockets / "control.sock"

    @property
    def logs(self) -> Path:
        return self._folder("logs")

    @property
    def platforms(self) -> Path:
        return self._folder("platforms.d")

    def _folder(self, name: str, mode: int = 0o755) -> Path:
        folder = self.root / name
        folder.mkdir(mode=mode, exist_ok=True)
        return folder

    def private(self, name: str) -> Path:
        """A directory that only we may read."""
        return self._folder(name, 0o700)

    def engine_data(self, name: str) -> Path:
        """A directory that belongs to the engines' account; outside of ours when that account cannot walk in."""
        parent = self.root if reachable(self.root) else self._outside()
        parent.mkdir(mode=0o755, exist_ok=True)
        folder = parent / name
        if not folder.exists():
            folder.mkdir(mode=0o700)
            give(folder)
        return folder

    def secret(self, name: str, make: Callable[[], str] = new_key) -> Path:
        """File of a secret, made on first use; only its owner may read it."""
        path = self.private("secrets") / name
        if not path.exists():
            draft = path.with_suffix(".new")
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
                out.write(make())
            draft.rename(path)
        return path

    def ring(self, name: str) -> Path:
        """File of a key ring: a JSON list, the first key seals."""
        return self.secret(name, lambda: json.dumps([new_key()]))

    def nats_seed(self, user: str) -> Path:
        return self.secret(f"nats-{user}.seed", new_seed)

    def nats_public_keys(self) -> dict[str, str]:
        """Variables of deploy/nats/nats.conf."""
        found: dict[str, str] = {}
        for user in NATS_USERS:
            public = bytes(nkeys.from_seed(self.nats_seed(user).read_bytes()).public_key)  # pyright: ignore[reportArgumentType]
            found[f"WARDMESH_NKEY_{user.upper().replace('-', '_')}"] = public.decode()
        return found


class PortBook:
    """Remembers which process listens where, and keeps two supervisors of one machine apart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
        self._reserved: dict[int, TextIO] = {}

    def take(self, name: str, *, preferred: int = 0, only: int = 0) -> int:
        """The port of last time when it is free, else another. `only` insists; raises PortTakenFault."""
        if only:
            if not (is_free(only) and self._reserve(only)):
                raise PortTakenFault(f"port {only} for {name} is taken: stop what listens there or use --port")
            return self._remember(name, only)
        wishes = [port for port in (self._known.get(name, 0), preferred) if 0 < port < EPHEMERAL]
        for port in wishes:
            if port not in self._reserved and is_free(port) and self._reserve(port):
                return self._remember(name, port)
        while True:
            port = free_port(taken=set(self._reserved) | set(self._known.values()))
            if self._reserve(port):
                return self._remember(name, port)

    def _remember(self, name: str, port: int) -> int:
        self._known[name] = port
        draft = self._path.with_suffix(".new")
        draft.write_text(json.dumps(self._known, indent=1, sort_keys=True))
        draft.rename(self._path)
        return port

    def release(self) -> None:
        """Our children hold the ports themselves, or nobody does."""
        for held in self._reserved.values():
            held.close()
        self._reserved = {}

    def _reserve(self, port: int) -> bool:
        """Between our look and the child's bind another supervisor could look too; the kernel drops locks for us."""
        held = reserve(port)
        if held is not None:
            self._reserved[port] = held
        return held is not None
