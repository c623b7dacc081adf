"""`wardmesh-auth` runs the service, `wardmesh-auth migrate` prepares its database."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from wardmesh_auth.app import create_app
from wardmesh_auth.database import TROUBLE, engine_for
from wardmesh_auth.migrate import migrate
from wardmesh_auth.settings import AuthSettings, MigrateSettings, read_settings
from wardmesh_common.bus import Bus
from wardmesh_common.health import Health
from wardmesh_common.service import run
from wardmesh_common.settings import EXIT_CONFIGURATION, BadSettings, load


def main() -> int:
    arguments = sys.argv[1:]
    if arguments == ["migrate"]:
        return _migrate()
    if arguments:
        sys.stderr.write("usage: wardmesh-auth [migrate]\n")
        return 64

    @asynccontextmanager
    async def create(settings: AuthSettings, bus: Bus, health: Health) -> AsyncGenerator[None]:
        async with create_app(settings, bus, health, environ=os.environ):
            yield

    return run("auth", lambda: read_settings(os.environ), create)


def _migrate() -> int:
    async def work(url: str) -> None:
        engine = engine_for(url)
        try:
            await migrate(engine)
        finally:
            await engine.dispose()

    try:
        asyncio.run(work(load(MigrateSettings, os.environ).database_url))
    except (BadSettings, ValueError) as error:
        sys.stderr.write(f"wardmesh-auth: {error}\n")
        return EXIT_CONFIGURATION
    except TROUBLE as error:
        sys.stderr.write(f"wardmesh-auth: the database cannot be prepared: {type(error).__name__}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
