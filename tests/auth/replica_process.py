"""One auth replica in a process of its own that a test may kill; its records go nowhere. Settings: the environment."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from wardmesh_auth.app import create_app
from wardmesh_auth.settings import read_settings
from wardmesh_common.bus import Bus
from wardmesh_common.health import Health


class Nowhere:
    async def intent(self, *_: Any) -> None: ...

    async def outcome(self, *_: Any) -> None: ...

    async def status(self, *_: Any) -> None: ...


async def main() -> None:
    settings = read_settings(os.environ)
    bus = await Bus.connect("auth", settings.nats_url, "")
    bus.recorder = Nowhere()
    async with create_app(settings, bus, Health(), environ=os.environ):
        print("ready", flush=True)
        await asyncio.Event().wait()


asyncio.run(main())
