"""The policy version in every decision, and an edited file that changes the next one."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import engines
from policy.pdp_stage import POLICIES, call_of, caller, judging
from wardmesh_common.vocabulary import Agent
from wardmesh_policy.bundle import Bundle, files_of, kinds_of, version_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def watched() -> Iterator[Path]:
    """A copy that Cerbos's account can read in place."""
    with tempfile.TemporaryDirectory(prefix="wm-policies-", dir="/tmp") as name:
        home = Path(name)
        home.chmod(0o755)
        yield Path(shutil.copytree(POLICIES, home / "policies"))


def test_the_version_is_that_of_names_and_contents_without_tests(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(POLICIES, tmp_path / "policies"))
    version = version_of(folder)
    assert version == version_of(POLICIES)
    (folder / "new_test.yaml").write_text("name: x\n")
    (folder / "testdata").mkdir(exist_ok=True)
    (folder / "testdata" / "more.yaml").write_text("x: 1\n")
    assert version_of(folder) == version
    seen = {version}
    for path in files_of(folder):
        path.write_text(path.read_text() + "# changed\n")
        seen.add(version_of(folder))
    (folder / "access.yaml").rename(folder / "access2.yaml")
    seen.add(version_of(folder))
    assert len(seen) == len(files_of(folder)) + 2
    assert "Patient" in kinds_of(folder)


async def test_an_edited_file_changes_the_next_decision_and_the_version(watched: Path) -> None:
    folder = watched
    bundle, changes = Bundle(folder), []
    with engines.cerbos(folder, watch=True) as engine:
        async with judging(engine.target, folder, lambda: bundle.version) as judge:

            async def changed(version: str) -> None:
                changes.append(version)
                judge.cache.policies_changed()

            watching = asyncio.create_task(bundle.watch(changed))
            try:
                before = await judge.ask("member", "read", "Organization", resource_id="1")
                assert before.allowed
                organization = folder / "organization.yaml"
                edited = organization.read_text().replace("roles: [patient, member]", "roles: [patient]")
                organization.write_text(edited)
                async with asyncio.timeout(30):
                    while True:
                        after = await judge.ask("member", "read", "Organization", resource_id="1")
                        if not after.allowed and after.policy_version != before.policy_version:
                            break
                        await asyncio.sleep(0.02)
                assert changes == [version_of(folder)]
                assert after.policy_version == version_of(folder)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)


@pytest.mark.requirement("X-21")
@pytest.mark.parametrize(
    ("expression", "passing"),
    [
        ('"roots" in P.attr.capabilities', {"capabilities": ("roots",)}),
        ('R.attr.arguments.exists(a, a[0] == "_count" && a[1] == "7")', {"query": "_count=7"}),
        ('R.id == "the-one"', {"resource_id": "the-one"}),
        ('P.attr.agent == "cursor-agent-v1"', {"agent": "cursor-agent-v1"}),
    ],
)
async def test_a_policy_may_look_at_each_part_of_the_question(
    tmp_path: Path, expression: str, passing: dict[str, object]
) -> None:
    folder = Path(shutil.copytree(POLICIES, tmp_path / "policies"))
    location = folder / "location.yaml"
    rule = "    - name: staff_searches\n      actions: [search]\n      effect: EFFECT_ALLOW\n"
    looking = rule.replace("[search]", "[search, history]") + f"      condition: {{match: {{expr: '{expression}'}}}}\n"
    text = location.read_text()
    assert text.count(rule) == 1
    location.write_text(text.replace(rule, looking))
    with engines.cerbos(folder) as engine:
        async with judging(engine.target, folder) as judge:
            agent = Agent(id=str(passing.get("agent", "unknown-agent")), capabilities=passing.get("capabilities", ()))
            given = {key: value for key, value in passing.items() if key in ("query", "resource_id")}
            action = "history" if "resource_id" in given else "search"
            good = await judge.decide(caller("Doctor", agent=agent), call_of(action, "Location", **given))
            bad = await judge.decide(caller("Doctor"), call_of(action, "Location"))
            other = await judge.decide(caller("Doctor", agent=agent), call_of("create", "Location", **given))
            assert (good.allowed, bad.allowed, other.allowed) == (True, False, False), "one rule, one action"
