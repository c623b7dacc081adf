"""Entry point of `wardmesh-fhir-proxy`."""

from __future__ import annotations

import os
import sys

from wardmesh_common.service import run
from wardmesh_fhir_proxy import settings
from wardmesh_fhir_proxy.app import create_app


def main() -> None:
    sys.exit(run("fhir-proxy", lambda: settings.read(os.environ), create_app))


if __name__ == "__main__":
    main()
