"""`make soak`, for half a minute: it finds nothing wrong, and what is planted it finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]
HERE = Path(__file__).parent


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "soak", "--json", str(tmp_path / "figures.json"), *arguments],
        env={**os.environ, "PYTHONPATH": f"{HERE.parents[1]}:{HERE}", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=380,
    )


def test_half_a_minute_of_everything_at_once_violates_nothing(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- soak: begin -->\nold\n<!-- soak: end -->\nafter\n")
    done = run(tmp_path, "--hours", "0.008", "--seed", "4", "--page", str(page))
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["violations"] == []
    for name in ("stage", "bring", "promote", "refuse", "read", "collect"):
        assert figures["jobs"].get(name), f"nobody did {name}"
    for name in ("kills", "staging workers killed", "crash points", "deliveries", "rotted", "inspections"):
        assert figures["counts"].get(name), f"no {name}"
    assert figures["faults"]
    text = page.read_text()
    assert text.startswith("before\n<!-- soak: begin -->\n")
    assert text.endswith("<!-- soak: end -->\nafter\n")
    assert "| violations | 0 |" in text
    assert "old" not in text
    assert not list(tmp_path.glob("soak-*")), "evidence of nothing was kept"


@pytest.mark.parametrize(
    ("plant", "violation"),
    [
        ("rot", "differs from revision"),
        ("file", "gone from under the lease|not what its name says|not what the manifest says|lost"),
        ("ref", "its attestation does not let in"),
        ("lease", "lives, and its holder"),
    ],
)
def test_what_is_planted_is_found_and_its_evidence_kept(plant: str, violation: str, tmp_path: Path) -> None:
    done = run(tmp_path, "--hours", "0.05", "--seed", "4", "--plant", plant)
    assert done.returncode == 1, done.stdout + done.stderr
    violations = [line for line in done.stdout.splitlines() if line.startswith("VIOLATION: ")]
    assert any(part in line for line in violations for part in violation.split("|")), done.stdout
    (evidence,) = tmp_path.glob("soak-*")
    assert json.loads((evidence / "figures.json").read_text())["violations"]
