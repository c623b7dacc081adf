"""What every test shares: the asyncio backend, lanes, and the record of which test proves which requirement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import lanes

_REQUIREMENT = "requirement"
# How long an example takes says something about the machine only; and what passed once passes again.
hypothesis.settings.register_profile(
    "wardmesh", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("wardmesh")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--requirements-report",
        metavar="FILE",
        default="",
        help="write a JSON object: requirement id -> test -> collected | passed | failed | skipped",
    )


def pytest_configure(config: pytest.Config) -> None:
    target = config.getoption("--requirements-report")
    if target and not hasattr(config, "workerinput"):  # one of several processes reports to the one that was started
        config.pluginmanager.register(Proofs(Path(target)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> lanes.Lanes:
    config.option.loadscopereorder = False  # the order is that of `lanes.place`
    return lanes.Lanes(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: lanes.place(item.nodeid))
    for item in items:
        # Properties travel with the reports of a test.
        item.user_properties.extend((_REQUIREMENT, name) for name in requirements_of(item))


def requirements_of(item: pytest.Item) -> list[str]:
    """Ids that this test proves; an id that is not a plain string is a mistake in the test."""
    found: list[str] = []
    for marker in item.iter_markers("requirement"):
        if not marker.args or not all(isinstance(name, str) for name in marker.args):
            raise pytest.UsageError(f"{item.nodeid}: requirement() needs ids as strings")
        found.extend(marker.args)
    return found


class Proofs:
    """Writes at the end what became of the tests of each requirement."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._outcomes: dict[str, dict[str, str]] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            self._note(item.nodeid, item.user_properties, "collected")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self._note(report.nodeid, report.user_properties, report.outcome)
        elif report.when == "call":
            self._note(report.nodeid, report.user_properties, "passed")

    def pytest_sessionfinish(self) -> None:
        self._target.write_text(json.dumps(self._outcomes, indent=1, sort_keys=True) + "\n")

    def _note(self, test: str, properties: list[tuple[str, object]], outcome: str) -> None:
        for name, requirement in properties:
            tests = self._outcomes.setdefault(str(requirement), {}) if name == _REQUIREMENT else {}
            if tests.get(test) != "failed":
                tests[test] = outcome


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
