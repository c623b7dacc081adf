"""`wardmesh-gateway` runs the gateway."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractAsyncContextManager

from wardmesh_common.bus import Bus
from wardmesh_common.health import Health
from wardmesh_common.service import run
from wardmesh_gateway.app import create_app
from wardmesh_gateway.settings import GatewaySettings, read_settings


def main() -> int:
    if sys.argv[1:]:
        sys.stderr.write("usage: wardmesh-gateway\n")
        return 64

    def create(settings: GatewaySettings, bus: Bus, health: Health) -> AbstractAsyncContextManager[None]:
        return create_app(settings, bus, health, environ=os.environ)

    return run("gateway", lambda: read_settings(os.environ), create)


if __name__ == "__main__":
    sys.exit(main())
