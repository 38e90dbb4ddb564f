"""`stagegate ready` for programs: a document, an error as a document, and nothing from a log that cannot be proved."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.support.forging import signing_scenario
from tests.support.scenario import Scenario
from tests.support.waiting import eventually

Run = Callable[..., CompletedProcess[str]]
READY = ("ready", "things@pilot", "--compact")


def test_ready_prints_documents(tmp_path: Path, run_stagegate: Run) -> None:
    scenario = Scenario(tmp_path, gates={"pilot": {"require": ["nonempty"]}})
    scenario.deliver("a\n1\n")
    unknown = run_stagegate("ready", "others@pilot", "--compact")
    assert (unknown.returncode, json.loads(unknown.stdout)["error"]["type"]) == (2, "UnknownDataset")
    scenario.promote("pilot")
    assert run_stagegate("stage", "things@pilot").returncode == 0
    assert json.loads(run_stagegate(*READY).stdout)["dataset"] == "things"

    (waits,) = tmp_path.glob("cache/refs/things/pilot")
    waits.unlink()
    waiting = run_stagegate(*READY, "--wait", "--timeout", "1s", "--progress=json")
    assert (waiting.returncode, json.loads(waiting.stdout)["error"]["type"]) == (1, "NotReady")
    assert "not ready" in json.loads(waiting.stderr.splitlines()[-2])["progress"]["step"]


def test_ready_says_why_arriving_stopped(tmp_path: Path, run_stagegate: Run) -> None:
    scenario = Scenario(tmp_path)
    for name in ("a", "b", "c", "d"):
        (scenario.nas / f"{name}.bin").write_bytes(bytes(1000))
    (scenario.nas / "e.bin").write_bytes(b"e" * 1000)
    scenario.stage()
    (scenario.nas / "e.bin").unlink()
    (tmp_path / "cache").rename(tmp_path / "other")
    assert run_stagegate("stage", "things", "--background").returncode == 0

    def message() -> str:
        done = run_stagegate("ready", "things", "--compact")
        error = json.loads(done.stdout)["error"]
        assert (done.returncode, error["type"], "stagegate stage things" in error["hint"]) == (1, "NotReady", True)
        return str(error["message"])

    eventually(lambda: " is arriving, " not in message())
    assert re.search(r"(?s)arriving stopped at 80%: .*e\.bin", message())
    assert "arriving stopped at 80%" in run_stagegate("ready", "things").stderr
    (failed,) = tmp_path.glob("cache/ingest/arriving-*/failed")
    failed.unlink()  # as where its process is killed
    assert "arriving stopped at 80%: the process that fetched it ended without a word" in message()


def test_forged_promotion_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = signing_scenario(tmp_path, monkeypatch)
    first, _ = scenario.promote_and_forge()
    for run in (scenario.run, scenario.on_another_node):
        assert run("ready", "things@production") == 3
        assert f"things@production stays at {first} (entry 1)" in capsys.readouterr().err
