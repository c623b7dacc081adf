"""`wardmesh-policy`: run the policy service."""

from __future__ import annotations

import os
import sys

from wardmesh_common.service import run
from wardmesh_common.settings import load
from wardmesh_policy.app import create_app
from wardmesh_policy.settings import ALIASES, PolicySettings


def main() -> None:
    sys.exit(run("policy", lambda: load(PolicySettings, os.environ, aliases=ALIASES), create_app))


if __name__ == "__main__":
    main()
