"""`make requirements [PREFIX=FG]`: each requirement with the tests that prove it, and how many are proven."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAST_RUN = ROOT / "build" / "requirements.json"


def manifest(prefix: str) -> dict[str, str]:
    text = (ROOT / "docs" / "requirements.md").read_text()
    rows = re.findall(r"^\| ([A-Z]+-\d+) \| (.*?) \|$", text, re.MULTILINE)
    return {name: words for name, words in rows if not prefix or name.rpartition("-")[0] == prefix}


def collected() -> dict[str, dict[str, str]]:
    """Requirement -> test -> `collected`. Raises when a test file cannot even be read."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--requirements-report", str(report)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            raise SystemExit(done.stdout[-3000:] + done.stderr[-1000:])
        return json.loads(report.read_text())


def main() -> int:
    wanted = manifest(sys.argv[1] if len(sys.argv) > 1 else "")
    tests = collected()
    last = json.loads(LAST_RUN.read_text()) if LAST_RUN.exists() else {}
    proven = 0
    for name, words in wanted.items():
        outcomes = {test: last.get(name, {}).get(test, "collected") for test in tests.get(name, {})}
        # A requirement counts only while none of its tests failed and not all of them were skipped in the last run.
        good = "failed" not in outcomes.values() and any(o != "skipped" for o in outcomes.values())
        proven += good
        print(f"{name:<8} {'proven  ' if good else 'unproven'} {words[:100]}")
        for test, outcome in sorted(outcomes.items()):
            print(f"           {'' if outcome in {'collected', 'passed'} else outcome.upper() + ' '}{test}")
    print(f"requirements proven {proven}/{len(wanted)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
