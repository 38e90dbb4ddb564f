"""What `check` does again after `validate`, and what a plan says it costs: by the installed command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from prefect_stagegate.jobs.gating.check import check_version, resolve_for_gate
from prefect_stagegate.jobs.open_workspace import open_workspace

Run = Callable[..., CompletedProcess[str]]

SPEC: dict[str, Any] = {
    "stagegate": 1,
    "dataset": "things",
    "sources": [{"url": "nas/"}],
    "contract": {"tables": {"rows": {"files": "*.csv", "columns": {"a": "int"}}}},
    "gates": {"pilot": {"require": ["schema", "nonempty", "expectations", "coverage"]}},
}
CONTRACT = SPEC["contract"]["tables"]["rows"] | {
    "suite": {"expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "a"}}]}
}


@pytest.fixture
def staged(tmp_path: Path, run_stagegate: Run) -> Path:
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas/a.csv").write_text("a\n1\n2\n")
    spec = tmp_path / "things.json"
    spec.write_text(json.dumps(SPEC | {"contract": {"tables": {"rows": CONTRACT}}}))
    assert run_stagegate("stage", spec).returncode == 0
    return spec


def plan(run: Run, what: str | Path, **settings: Any) -> dict[str, Any]:
    planned = run("check", what, "--gate", "pilot", "--plan", "--json", **settings)
    assert planned.returncode == 0, planned.stderr
    return {row["check"]: row for row in json.loads(planned.stdout)}


def test_check_uses_what_validate_found(staged: Path, run_stagegate: Run, tmp_path: Path) -> None:
    assert run_stagegate("validate", staged).returncode == 0
    planned = plan(run_stagegate, staged)
    assert {name: (row["state"], row["reason"]) for name, row in planned.items()} == dict.fromkeys(
        SPEC["gates"]["pilot"]["require"], ("current", "")
    )
    seconds = {row["seconds"] for row in planned.values()}
    assert len(seconds) == 1  # each check would need the whole run of the contract, the child's start included
    assert min(seconds) > 0.5
    staged.write_text(json.dumps(SPEC))  # another contract: nothing of it holds
    assert {row["reason"] for row in plan(run_stagegate, staged).values()} == {"another contract"}

    revoked = run_stagegate("revoke", "things", "--check", "coverage", "--reason", "it was wrong")
    assert revoked.returncode == 0, revoked.stderr
    line = run_stagegate("check", "things", "--gate", "pilot", "--plan").stdout.splitlines()[1]
    assert line == f"To run: 1 of 4 checks, took {min(seconds):.1f} s last time."
    elsewhere = {"STAGEGATE_CACHE": str(tmp_path / "another-node")}
    line = run_stagegate("check", "things", "--gate", "pilot", "--plan", env=elsewhere).stdout.splitlines()[1]
    assert line.endswith(" last time, after fetching 6 B to this node.")


def test_progress_names_the_check_and_its_work(staged: Path, tmp_path: Path) -> None:
    workspace, lines = open_workspace(tmp_path / "cache", tmp_path / "catalog"), list[str]()
    check_version(workspace, *resolve_for_gate(workspace, "things", "pilot"), progress=lines.append)
    assert lines[0] == "schema (1 of 4)"
    assert "schema (1 of 4): opened 1 file" in lines
    assert [line for line in lines if ":" not in line][-1] == "coverage (4 of 4)"
