"""Runs that used a version: recorded when they open it, listed, and named when it is taken back."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.runtime import flow_run

from prefect_stagegate import open_dataset
from prefect_stagegate.clock import now
from prefect_stagegate.jobs.gating import check as checking
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.runs import active_runs, use_records
from prefect_stagegate.plugins.runs.use_records import KEPT
from prefect_stagegate.tasks import check_readiness, require_ready
from prefect_stagegate.testing.servers import SeaweedFS
from tests.support.scenario import Scenario, dataset_name
from tests.support.told import events_about

REQUIRED = ["license", {"freshness": {"warn": "12h", "fail": "24h"}}]


@pytest.fixture
def things(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """A dataset with two versions, both of which production accepted."""
    things = Scenario(tmp_path, dataset_name(request), gates={"production": {"require": REQUIRED}})
    for text in ("one", "two"):
        things.deliver(text)
        things.promote()
    for name, value in things.environment(STAGEGATE_NODE="gpu-7", STAGEGATE_IDENTITY="ada").items():
        monkeypatch.setenv(name, value)
    for sign in ("MLFLOW_RUN_ID", "WANDB_RUN_ID", "PREFECT__FLOW_RUN_ID"):
        monkeypatch.delenv(sign, raising=False)
    monkeypatch.setattr(active_runs, "_warned", set())
    return things


def use(things: Scenario, run: str, ref: str = "production") -> None:
    with open_dataset(f"{things.dataset}@{ref}") as data:
        assert run in data.log(run)


def listed(things: Scenario, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert things.run("runs", f"{things.dataset}@production", "--json", *words) == code
    uses: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return uses


def in_a_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_use_is_listed_with_run_node_and_times(things: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    use(things, "slurm:77")
    use(things, "slurm:78")
    newest, _ = listed(things, capsys)
    assert newest["run"] == {"tool": "slurm", "id": "78", "name": "", "place": ""}
    assert (newest["ref"], newest["who"], newest["node"]) == ("production", "ada (declared)", "gpu-7")
    assert newest["begun"] < newest["ended"]
    assert things.run("runs", f"{things.dataset}@production") == 0
    assert "slurm:77" in capsys.readouterr().out


def test_arriving_version_logs_its_use(things: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    with open_dataset(f"{things.dataset}@production", wait=False) as data:
        assert data.log("slurm:1") == ("slurm:1",)
        assert listed(things, capsys)[0]["ended"] == ""
    assert listed(things, capsys)[0]["ended"]


def test_tags_have_the_decision_and_its_policy(things: Scenario) -> None:
    with open_dataset(f"{things.dataset}@production") as data:
        tags = data.tags()
    decision = check(things.node(), Address(things.dataset, data.digest), "production")
    assert tags.pop("stagegate.decision").startswith("sha256:")
    assert tags == {
        "stagegate.dataset": things.dataset,
        "stagegate.ref": "production",
        "stagegate.digest": data.digest,
        "stagegate.policy": decision.policy,
    }
    with open_dataset(f"{things.dataset}@{data.digest}") as data:
        assert data.tags().keys() == {"stagegate.dataset", "stagegate.digest"}


def test_killed_run_has_no_end(things: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    killed = in_a_process(
        "import os, signal\nfrom prefect_stagegate import open_dataset\n"
        f"with open_dataset('{things.dataset}@production') as data:\n"
        "    data.log('slurm:9')\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert killed.returncode == -signal.SIGKILL
    (found,) = listed(things, capsys)
    assert (found["run"]["id"], found["ended"]) == ("9", "")
    things.run("runs", f"{things.dataset}@production")
    assert "open, or killed" in capsys.readouterr().out


def test_run_has_one_record_however_often_it_opens(things: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    use(things, "slurm:1")
    (first,) = listed(things, capsys)
    use(things, "slurm:1")
    (again,) = listed(things, capsys)
    assert again["begun"] == first["begun"]
    assert again["ended"] > first["ended"]


def test_exec_records_the_run_of_its_environment(
    things: Scenario, capsys: pytest.CaptureFixture[str], run_stagegate: Any
) -> None:
    done = run_stagegate(
        "exec", f"{things.dataset}@production", "--", "true", env={**os.environ, "MLFLOW_RUN_ID": "3f"}
    )
    assert done.returncode == 0, done.stderr
    (found,) = listed(things, capsys)
    assert (found["run"]["tool"], found["run"]["id"], found["ended"]) == ("mlflow", "3f", "")


@pytest.mark.usefixtures("prefect_server")
def test_prefect_run_is_known_by_itself(things: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    opened, required = [], []

    @flow
    def train() -> None:
        with open_dataset(f"{things.dataset}@production~1"):
            opened.append(str(flow_run.get_id()))

    @flow
    def guarded() -> None:
        require_ready(f"{things.dataset}@production", **things.on)
        required.append(str(flow_run.get_id()))

    train()
    guarded()
    things.run("rollback", f"{things.dataset}@production", "--reason", "for a test", "--json")
    users = json.loads(capsys.readouterr().out)["users"]
    assert [found["run"]["id"] for found in users["runs"]] == required
    (found,) = listed(things, capsys)
    assert (found["run"]["tool"], found["run"]["id"]) == ("prefect", opened[0])


# ── taken back ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_rollback_and_revocation_name_the_runs(things: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    use(things, "slurm:77")
    version = f"{things.dataset}@{things.head('production')}"
    assert things.run("revoke", version, "--check", "license", "--reason", "wrong page") == 0
    assert "Runs that used it: slurm:77 (ada (declared) on gpu-7)" in capsys.readouterr().out
    assert things.run("rollback", f"{things.dataset}@production", "--reason", "loss went up") == 0
    assert "Runs that used it: slurm:77" in capsys.readouterr().out


@pytest.mark.usefixtures("prefect_server")
def test_withdrawal_names_the_runs(
    things: Scenario, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(things, "slurm:77")
    version = f"{things.dataset}@{things.head('production')}"
    monkeypatch.setattr(checking, "now", lambda: now() + timedelta(hours=30))
    page = tmp_path / "report.md"
    words = ("check", version, "--gate", "production", "--render", f"markdown={page}")
    assert things.run(*words) == 1
    told = capsys.readouterr().out
    assert "Withdrawn from production by ada (declared): failed when it was checked again: freshness" in told
    assert "Runs that used it: slurm:77 (ada (declared) on gpu-7)" in told
    assert "slurm:77" in page.read_text()

    flow(check_readiness.fn)(version, "production", **things.on)
    events = events_about(f"stagegate.dataset.{things.dataset}", 2)
    (payload,) = [event["payload"] for event in events if event["event"] == "stagegate.version.withdrawn"]
    assert (payload["digest"], payload["target"]) == (version.partition("@")[2], "production")
    assert [found["run"]["id"] for found in payload["users"]["runs"]] == ["77"]


# ── bounds ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_hostile_names_are_cut_and_cleaned(things: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "https://ada:hunter2-hunter2@mlflow.example.org/?token=hunter2-hunter2"
    with open_dataset(f"{things.dataset}@production") as data:
        data.log("slurm:\x1b[2J\n" + "x" * 10_000_000)
        data.log(f"other:{secret}")
    records = [path for path in (things.folder / "catalog").rglob("*.json") if "runs." in str(path)]
    assert max(path.stat().st_size for path in records) < 2000
    assert not [path for path in records if b"hunter2" in path.read_bytes()]
    assert things.run("runs", f"{things.dataset}@production") == 0
    assert "\x1b" not in capsys.readouterr().out


def test_oldest_runs_are_removed(things: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    folder = forge(things, KEPT + 20)
    use(things, "slurm:1")
    assert len(list(folder.iterdir())) == KEPT
    assert listed(things, capsys, "--last", "1")[0]["run"]["id"] == "1"


def test_oldest_runs_are_removed_from_a_bucket(
    things: Scenario, seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(use_records, "KEPT", 2)
    seaweedfs.bucket("uses")
    options = {"endpoint_url": seaweedfs.endpoint_url, "key": seaweedfs.key, "secret": seaweedfs.secret}
    catalog = open_workspace(things.on["cache"], "s3://uses/catalog", catalog_options=options).catalog
    digest = things.head("production")
    for number in range(4):
        use = use_records.UseBegun(use_records.TrackedRun("slurm", str(number)), "", "ada", "gpu-7", "")
        name = use_records.record_begun(catalog, "things", digest, use)
        use_records.record_ended(catalog, "things", digest, name, ["delays/1"])
        time.sleep(1)  # names have seconds
    uses, more = use_records.read_uses(catalog, "things", digest, 10)
    assert ([found.run.id for found in uses], more) == (["3", "2"], 0)
    assert len(use_records.use_names(catalog, use_records.ENDED, "things", digest)) == 2


def test_many_forged_uses_bound_no_listing(things: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    forge(things, 100_000)
    started = time.monotonic()
    assert len(listed(things, capsys)) == 50
    assert things.run("rollback", f"{things.dataset}@production", "--reason", "loss went up", "--json") == 0
    users = json.loads(capsys.readouterr().out)["users"]
    assert (len(users["runs"]), users["more_runs"]) == (20, 99_980)
    assert time.monotonic() - started < 60


def test_damaged_use_costs_only_itself(things: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    use(things, "slurm:1")
    folder = forge(things, 2)
    newest = max(folder.iterdir())
    newest.write_bytes(b"{" + b" " * 1_000_000 + b"}")
    found = listed(things, capsys, code=3)
    assert (len(found), "unreadable" in found[-1]) == (3, True)


def forge(things: Scenario, count: int) -> Path:
    """Write records of so many runs round operations, as anybody who may write to the catalog can."""
    digest = things.head("production").removeprefix("sha256:")
    folder = things.folder / "catalog/datasets" / things.dataset / "runs.begun" / digest
    folder.mkdir(parents=True, exist_ok=True)
    record = {"run": {"tool": "t", "id": "i"}, "ref": "", "who": "w", "node": "n", "at": "2026-01-01T00:00:00.000000Z"}
    first = folder
    for number in range(count):
        path = folder / f"20260101T{number:06d}Z-{hashlib.sha256(str(number).encode()).hexdigest()[:16]}.json"
        if number % 30_000:
            os.link(first, path)
        else:  # a file has a bounded number of links
            first = path
            first.write_text(json.dumps(record))
    return folder


# ── nothing breaks the reading ──────────────────────────────────────────────────────────────────────────────────


def test_without_a_run_opening_asks_nobody(things: Scenario) -> None:
    done = in_a_process(
        "import sys\nfrom prefect_stagegate import open_dataset\n"
        f"with open_dataset('{things.dataset}@production') as data: pass\n"
        "names = ('prefect_stagegate.catalog', 'prefect_stagegate.plugins.')\n"
        "print([name for name in sys.modules if name.startswith(names)])"
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_absent_catalog_costs_a_warning(
    things: Scenario, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("STAGEGATE_CATALOG", str(tmp_path / "nowhere"))
    for _ in range(3):
        with open_dataset(f"{things.dataset}@production") as data:
            assert data.log("slurm:1") == ("slurm:1",)
            assert data.tags().keys() == {f"stagegate.{name}" for name in ("dataset", "ref", "digest")}
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == len(set(warnings)) <= 2
    assert "There is no catalog" in warnings[0]


def test_catalog_that_refuses_records_costs_a_warning(things: Scenario, caplog: pytest.LogCaptureFixture) -> None:
    (things.folder / "catalog/datasets" / things.dataset / "runs.begun").write_text("no folder")
    use(things, "slurm:1")
    assert "Could not record in the catalog which run uses a version" in caplog.text


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that accepts connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_catalog_that_hangs_holds_no_reader(things: Scenario, silent_server: str) -> None:
    settings = {"STAGEGATE_CATALOG": "s3://lake/catalog", "AWS_ENDPOINT_URL": silent_server}
    started = time.monotonic()
    done = in_a_process(
        "from prefect_stagegate import open_dataset\n"
        f"with open_dataset('{things.dataset}@production') as data:\n"
        "    data.log('slurm:1')\n    print((data.path / 'data.csv').read_text())",
        **settings | {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y" * 20},
    )
    assert (done.returncode, done.stdout) == (0, "two\n"), done.stderr
    assert "no response for 5 s" in done.stderr
    assert time.monotonic() - started < 30
