"""HL7's own validator over the golden AuditEvents, against the base of R4: a heavy tier, asked for by a variable.

The profiles of the BALP guide are not part of it: its package is on no registry that Python, npm or Maven reach, and
its sources are shorthand that needs that registry to be compiled. What the profiles say is in `balp_rules`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "fhir-store" / "differential"))
from counterparts import (
    hapi_class_path,
    hapi_missing,
)

HERE = Path(__file__).parent
GOLDENS = sorted((HERE / "golden" / "balp").glob("*.json"))
SECONDS = 300
WITHOUT_THE_GUIDE = ("has not been checked because it could not be found", "Failed to retrieve profile")

pytestmark = [
    pytest.mark.timeout(700),
    pytest.mark.skipif(bool(hapi_missing()), reason=f"HL7's validator is NOT run: {hapi_missing()}"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    classes, class_path = tmp_path_factory.mktemp("classes"), hapi_class_path()
    source = HERE / "oracle" / "fhir" / "Validate.java"
    command = ["javac", "-proc:none", "-nowarn", "-cp", class_path, "-d", str(classes), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
    return ["java", "-Xmx1500m", "-XX:TieredStopAtLevel=1", "-cp", f"{classes}:{class_path}", "Validate"]


def complaints(program: list[str], files: list[Path]) -> list[str]:
    done = subprocess.run([*program, *map(str, files)], capture_output=True, text=True, timeout=SECONDS, check=True)
    *lines, last = done.stdout.strip().splitlines()
    assert last == f"validated {len(files)}"
    names = tuple(f"{path.name} " for path in files)  # the parser of the definitions says things of its own
    return [line for line in lines if line.startswith(names) and not any(words in line for words in WITHOUT_THE_GUIDE)]


@pytest.mark.requirement("AU-608")
def test_every_golden_audit_event_is_valid_r4_to_the_official_validator(program: list[str], tmp_path: Path) -> None:
    assert len(GOLDENS) >= 18
    assert complaints(program, GOLDENS) == []
    for name, change in (("agent", []), ("recorded", "yesterday"), ("outcome", "9"), ("surprise", True)):
        event = json.loads(GOLDENS[0].read_text()) | {name: change}
        (tmp_path / f"{name}.json").write_text(json.dumps(event))
        assert complaints(program, [tmp_path / f"{name}.json"]), f"it would notice {name}"
