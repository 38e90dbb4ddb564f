"""What a check says before it begins: what it asks, why, and how long that took last time."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from datetime import timedelta

import pytest

from prefect_stagegate.cli.progress_display import shown_work
from prefect_stagegate.cli.reporting import announce, forecast, print_plan, with_ages
from prefect_stagegate.clock import moment, now
from prefect_stagegate.gate import CHECKS
from prefect_stagegate.gate.gate import PlannedCheck, State
from prefect_stagegate.model import Evidence, Outcome, Severity
from prefect_stagegate.spec import Requirement


def planned(name: str, state: State, seconds: float | None = None, reason: str = "") -> PlannedCheck:
    requirement = Requirement(name, Severity.BLOCKING, {})
    held = Evidence(name, Outcome.PASS, "fine", "data") if state is State.CURRENT else None
    return PlannedCheck(requirement, CHECKS[name], state, reason, held, seconds)


PLAN = (
    planned("schema", State.STALE, 92.0, "another contract"),
    planned("space", State.STALE, 0.001, "another node"),
    planned("license", State.CURRENT, 0.2),
    planned("owner", State.MISSING, None, "it never ran"),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_forecast_sums_pending_checks_and_names_unknown_times() -> None:
    assert forecast(PLAN) == "To run: 3 of 4 checks, took 2 min last time, 1 of unknown duration."
    assert forecast(PLAN[1:3]) == "To run: 1 of 2 checks, took <0.1 s last time."
    assert forecast(PLAN[3:]) == "To run: 1 of 1 check, their time is not known yet."
    assert forecast(PLAN[2:3]) == "No check to run: all evidence still holds (1 check)."


def test_forecast_counts_shared_work_once_and_what_is_fetched() -> None:
    names = ("schema", "expectations", "coverage")
    contract = [planned(name, State.STALE, seconds) for name, seconds in zip(names, (13.6, 14.0, None), strict=True)]
    assert forecast(contract) == "To run: 3 of 3 checks, took 14.0 s last time."
    fetched = [replace(obj, fetches=3_200_000_000) for obj in contract]
    assert forecast(fetched) == "To run: 3 of 3 checks, took 14.0 s last time, after fetching 3.2 GB to this node."


def test_plan_begins_with_the_forecast(capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(PLAN, json=False)
    first, schema, _, license_, owner = capsys.readouterr().out.splitlines()
    assert first == forecast(PLAN)
    assert schema.split() == ["schema", "stale", "2", "min", "another", "contract"]
    assert license_.split()[:4] == ["license", "current", "0.2", "s"]
    assert owner.split()[2] == "?"


def test_plan_as_json(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    print_plan(PLAN[:1], json=True)
    rows = json.loads(capsysbinary.readouterr().out)
    assert rows == [
        {"check": "schema", "state": "stale", "reason": "another contract", "seconds": 92.0, "bytes_to_fetch": 0}
    ]


def test_only_a_terminal_is_told_and_only_of_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        announce((*PLAN, replace(PLAN[0], reason="\x1b[31m")))
        lines = stream.getvalue().splitlines()
        assert lines == [] or [line.split()[0] for line in lines[1:]] == ["schema", "space", "owner", "schema"]
        assert bool(lines) == stream.isatty()
        assert "\x1b" not in stream.getvalue()


def test_a_terminal_shows_which_check_is_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        with shown_work("check things") as progress:
            assert bool(progress) == stream.isatty()
            if progress:
                progress("expectations (3 of 5)\n[red]\x1b[31m")
        assert ("check things: expectations (3 of 5) [red]\\x1b[31m" in stream.getvalue()) == stream.isatty()
    with shown_work("check things", "none") as progress:
        assert progress is None


def test_a_plan_shows_the_ages_of_times_and_records_none(capsys: pytest.CaptureFixture[str]) -> None:
    then = now() - timedelta(minutes=17, seconds=5)
    seen = f"last heartbeat at {then:%Y-%m-%dT%H:%M:%SZ}"
    held = Evidence("runbook", Outcome.PASS, seen, "infra")
    print_plan([replace(planned("runbook", State.CURRENT), evidence=held)], json=False)
    assert f"pass: {seen} (17 min ago)" in capsys.readouterr().out
    print_plan([planned("space", State.STALE, reason=f"it expired at {then:%Y-%m-%dT%H:%M:%SZ}")], json=False)
    assert capsys.readouterr().out.endswith("Z (17 min ago)\n")


def test_ages_are_added_to_times_only() -> None:
    at = moment("2026-03-01T03:00:00Z")
    assert with_ages("due at 2026-03-01T05:00:00Z", at) == "due at 2026-03-01T05:00:00Z (in 2 h)"
    for other in ("9999-99-99T99:99:99Z", "run-2026-03-01T03:00:00Z.csv", "2026-03-01", "3 files"):
        assert with_ages(other, at) == other
