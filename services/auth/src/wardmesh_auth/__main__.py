"""`wardmesh-auth` runs the service; `migrate`, `rotate-keys` and `rotate-client-keys` look after what it stores."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from wardmesh_auth.app import create_app
from wardmesh_auth.client_key_ring import ClientKeyRing
from wardmesh_auth.database import TROUBLE, Database, engine_for
from wardmesh_auth.migrate import migrate
from wardmesh_auth.rotation import rotate_keys
from wardmesh_auth.settings import AuthSettings, MigrateSettings, master_ring, read_key_settings, read_settings
from wardmesh_auth.vault import Vault
from wardmesh_common.bus import Bus
from wardmesh_common.errors import WardmeshError
from wardmesh_common.health import Health
from wardmesh_common.service import run
from wardmesh_common.settings import EXIT_CONFIGURATION, BadSettings, load


def main() -> int:
    arguments = sys.argv[1:]
    commands = {"migrate": _migrate, "rotate-keys": _rotate_keys, "rotate-client-keys": _rotate_client_keys}
    if len(arguments) == 1 and arguments[0] in commands:
        return _carried_out(commands[arguments[0]])
    if arguments:
        sys.stderr.write(f"usage: wardmesh-auth [{' | '.join(commands)}]\n")
        return 64

    @asynccontextmanager
    async def create(settings: AuthSettings, bus: Bus, health: Health) -> AsyncGenerator[None]:
        async with create_app(settings, bus, health, environ=os.environ):
            yield

    return run("auth", lambda: read_settings(os.environ), create)


async def _migrate() -> None:
    engine = engine_for(load(MigrateSettings, os.environ).database_url)
    try:
        await migrate(engine)
    finally:
        await engine.dispose()


async def _rotate_keys() -> None:
    async with _opened() as (database, vault):
        changed = await rotate_keys(database, vault)
    sys.stdout.write(f"{changed} stored secrets are under the first master key now\n")


async def _rotate_client_keys() -> None:
    async with _opened() as (database, vault):
        await ClientKeyRing(database, vault).rotate()
    sys.stdout.write("new client keys are published; they sign once platforms had time to fetch them\n")


@asynccontextmanager
async def _opened() -> AsyncGenerator[tuple[Database, Vault]]:
    settings = read_key_settings(os.environ)
    database = Database(engine_for(settings.database_url))
    try:
        yield database, Vault(master_ring(settings))
    finally:
        await database.close()


def _carried_out(command: Callable[[], Awaitable[None]]) -> int:
    async def work() -> None:
        await command()

    try:
        asyncio.run(work())
    except (BadSettings, ValueError) as error:
        sys.stderr.write(f"wardmesh-auth: {error}\n")
        return EXIT_CONFIGURATION
    except WardmeshError as error:
        sys.stderr.write(f"wardmesh-auth: {error.problem.detail}\n")
        return 1
    except TROUBLE as error:
        sys.stderr.write(f"wardmesh-auth: the database cannot be used: {type(error).__name__}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
