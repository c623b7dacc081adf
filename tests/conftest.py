"""What every test shares: the asyncio backend and the record of which test proves which requirement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

_PROOFS = pytest.StashKey[dict[str, dict[str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--requirements-report",
        metavar="FILE",
        default="",
        help="write a JSON object: requirement id -> test -> collected | passed | failed | skipped",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_PROOFS] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    proofs = config.stash[_PROOFS]
    for item in items:
        for requirement in requirements_of(item):
            proofs.setdefault(requirement, {})[item.nodeid] = "collected"


def requirements_of(item: pytest.Item) -> list[str]:
    """Ids that this test proves; an id that is not a plain string is a mistake in the test."""
    found: list[str] = []
    for marker in item.iter_markers("requirement"):
        if not marker.args or not all(isinstance(name, str) for name in marker.args):
            raise pytest.UsageError(f"{item.nodeid}: requirement() needs ids as strings")
        found.extend(marker.args)
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    for requirement in requirements_of(item):
        tests = item.config.stash[_PROOFS][requirement]
        if report.failed or report.skipped:
            tests[item.nodeid] = report.outcome
        elif report.when == "call" and tests[item.nodeid] != "failed":
            tests[item.nodeid] = "passed"
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = session.config.getoption("--requirements-report")
    if target:
        proofs = session.config.stash[_PROOFS]
        Path(target).write_text(json.dumps(proofs, indent=1, sort_keys=True) + "\n")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
