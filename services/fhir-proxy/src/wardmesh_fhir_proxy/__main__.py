"""Entry point of `wardmesh-fhir-proxy`: the service, or with `platforms` the commands about its catalogue."""

from __future__ import annotations

import os
import sys

from wardmesh_common.service import run
from wardmesh_fhir_proxy import platform_commands, settings
from wardmesh_fhir_proxy.app import create_app


def main() -> None:
    if sys.argv[1:2] == ["platforms"]:
        sys.exit(platform_commands.main(sys.argv[2:]))
    sys.exit(run("fhir-proxy", lambda: settings.read(os.environ), create_app))


if __name__ == "__main__":
    main()
