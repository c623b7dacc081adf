"""Cerbos's own tests beside the policies: all pass, and no policy goes without an allow and a refusal."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from policy.pdp_stage import POLICIES
from wardmesh_cli.binaries import Binaries
from wardmesh_policy.bundle import kinds_of


def run(folder: Path) -> tuple[int, dict[str, Any]]:
    command = [str(Binaries().cerbos()), "compile", "--output=json", "--verbose", str(folder)]
    environ = {"PATH": "/usr/bin:/bin", "CERBOS_NO_TELEMETRY": "1", "HOME": "/tmp"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    start = done.stdout.find("{")
    return done.returncode, json.loads(done.stdout[start:]) if start >= 0 else {}


def verdicts(report: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """(resource, action, result, allowed as expected) of every single case."""
    found: list[tuple[str, str, str, bool]] = []
    for suite in report["suites"]:
        for case in suite["testCases"]:
            for principal in case["principals"]:
                for resource in principal["resources"]:
                    for action in resource["actions"]:
                        details = action["details"]
                        allowed = details.get("success", {}).get("effect") == "EFFECT_ALLOW"
                        found.append((resource["name"], action["name"], details["result"], allowed))
    return found


@pytest.mark.requirement("SM-10")
def test_the_suites_of_the_policies_pass_and_leave_no_policy_out() -> None:
    code, report = run(POLICIES)
    assert code == 0, report
    cases = verdicts(report)
    assert len(cases) > 2000
    assert {result for _, _, result, _ in cases} == {"RESULT_PASSED"}
    kinds = {
        name: resource["kind"]
        for name, resource in yaml.safe_load((POLICIES / "testdata" / "resources.yaml").read_text())[
            "resources"
        ].items()
    }
    allowed = {kinds[name] for name, _, _, yes in cases if yes}
    refused = {kinds[name] for name, _, _, yes in cases if not yes}
    assert allowed == refused == set(kinds_of(POLICIES))


def test_one_policy_per_kind_and_each_imports_the_same_relations_and_answers() -> None:
    kinds: list[str] = []
    for path in sorted(POLICIES.glob("*.yaml")):
        policy = yaml.safe_load(path.read_text()).get("resourcePolicy")
        if policy is None:
            continue
        kind = policy["resource"]
        assert path.stem == re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()
        assert all(rule["effect"] == "EFFECT_ALLOW" for rule in policy["rules"]), "everything else is refused anyway"
        assert all("*" not in rule["actions"] for rule in policy["rules"])
        for rule in policy["rules"]:
            assert rule["output"]["when"]["ruleActivated"] in ("V.whole", "V.own", "V.granted", "V.emergency", "{}"), (
                rule["name"]
            )
        kinds.append(kind)
    assert len(kinds) == len(set(kinds)) == len(kinds_of(POLICIES))


def test_a_suite_fails_when_a_policy_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    for path in POLICIES.rglob("*.yaml"):
        target = folder / path.relative_to(POLICIES)
        target.parent.mkdir(exist_ok=True)
        target.write_text(path.read_text().replace("[clinical_reader, visitor]", "[clinical_reader, visitor, staff]"))
    code, report = run(folder)
    assert code != 0
    assert "RESULT_FAILED" in {result for _, _, result, _ in verdicts(report)}
