"""What `stagegate metrics` says of a node and its catalog."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from prefect_stagegate.catalog.records import DirectoryRecords
from prefect_stagegate.errors import GateFailed, StagegateError
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.require import find_ready, hold_ready
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.observe.monitoring import node_state
from prefect_stagegate.plugins.observe.monitoring.catalog_state import catalog_samples
from prefect_stagegate.plugins.observe.monitoring.exposition import exposition, metrics_text, node_metrics_text
from prefect_stagegate.plugins.observe.monitoring.families import FAMILIES
from prefect_stagegate.plugins.observe.monitoring.node_state import node_samples
from tests.support.scenario import Scenario

Run = Callable[..., CompletedProcess[str]]
Values = dict[tuple[str, ...], float]
DEAD = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
"""An object store that does not answer."""

GATES: dict[str, Any] = {
    "pilot": {"require": ["license", {"freshness": {"fail": "24h"}}]},
    "production": {"extends": "pilot", "require": [{"approval": {"count": 1, "from": ["infra"]}}]},
}
THINGS = Address("things")


def values(text: bytes) -> Values:
    """Each sample by its name and the values of its labels, in the order of the labels' names."""
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    return Scenario(tmp_path, gates=GATES)


def scraped(scenario: Scenario) -> Values:
    return values(metrics_text(scenario.node()))


def test_targets_show_what_they_name_and_what_waits(scenario: Scenario) -> None:
    scenario.deliver("one")
    scenario.promote("pilot", "production")
    scenario.deliver("two")
    scenario.promote("pilot")
    assert check(scenario.node(), THINGS, "production").outcome == "waiting"
    now, shown = time.time(), scraped(scenario)
    assert shown["stagegate_catalog_up",] == 1
    assert shown["stagegate_versions", "things"] == 2
    for ref in ("latest", "pilot", "production"):
        assert 0 <= now - shown["stagegate_ref_moved_timestamp_seconds", "things", ref] < 100
        assert shown["stagegate_node_ref_current", "things", ref] == 1
    assert shown["stagegate_target_standing", "things", "serving", "pilot"] == 1
    assert shown["stagegate_target_standing", "things", "waiting", "production"] == 1
    assert 0 <= now - shown["stagegate_approval_requested_timestamp_seconds", "things", "production"] < 100
    decided = ("stagegate_proposed_decision_timestamp_seconds", "things", "waiting", "production")
    assert 0 <= now - shown[decided] < 100
    assert 40_000 < shown["stagegate_evidence_ends_timestamp_seconds", "things", "pilot"] - now <= 86_400


def test_counters_add_up_over_jobs(scenario: Scenario) -> None:
    scenario.deliver("one")
    scenario.deliver("three")
    (scenario.nas / "data.csv").unlink()
    with pytest.raises(StagegateError):
        scenario.stage()
    check(scenario.node(), THINGS, "pilot")
    shown = scraped(scenario)
    assert shown["stagegate_steps_total", "things", "ok", "stage"] == 2
    assert shown["stagegate_steps_total", "things", "error", "stage"] == 1
    assert shown["stagegate_step_duration_seconds_count", "stage"] == 3
    assert shown["stagegate_step_duration_seconds_bucket", "+Inf", "stage"] == 3
    assert shown["stagegate_step_duration_seconds_sum", "stage"] > 0
    assert shown["stagegate_transfer_bytes_total", f"file://{scenario.nas}", "source"] == len("one" + "three")
    assert shown["stagegate_decisions_total", "things", "accepted", "pilot"] == 1
    assert shown["stagegate_checks_total", "license", "pass"] == 1


def test_error_counts_once_where_it_arose(scenario: Scenario) -> None:
    scenario.deliver("one")
    (scenario.nas / "data.csv").unlink()
    with pytest.raises(StagegateError):
        scenario.stage()
    errors = {key: value for key, value in scraped(scenario).items() if key[0] == "stagegate_errors_total"}
    assert list(errors.values()) == [1]


def test_run_that_may_not_begin_counts(scenario: Scenario) -> None:
    scenario.deliver("one")
    scenario.promote("pilot")
    workspace = scenario.node()
    ready = find_ready(workspace, Address("things", "pilot"))
    with hold_ready(workspace, ready):
        pass
    with pytest.raises(GateFailed), hold_ready(workspace, replace(ready, candidates=())):
        pass
    shown = scraped(scenario)
    assert shown["stagegate_steps_total", "things", "ok", "require"] == 1
    assert shown["stagegate_steps_total", "things", "error", "require"] == 1
    assert shown["stagegate_errors_total", "GateFailed", "require"] == 1


def test_bytes_count_by_where_they_came_from(scenario: Scenario) -> None:
    scenario.write("one")
    os.utime(scenario.nas / "data.csv", (1, 1))  # a young file is read again
    scenario.stage()
    (scenario.nas / "more.csv").write_text("more")
    scenario.stage()
    shown = scraped(scenario)
    assert shown["stagegate_transfer_bytes_total", "", "cache"] == len("one")
    assert shown["stagegate_transfer_bytes_total", f"file://{scenario.nas}", "source"] == len("one" + "more")


def test_cache_shows_its_size_and_room(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGEGATE_MAX_SIZE", "64MiB")
    scenario.deliver("x" * 10_000)
    shown = scraped(scenario)
    assert shown["stagegate_cache_used_bytes",] == 12_288
    assert shown["stagegate_cache_room_bytes",] == (64 << 20) - 12_288
    assert shown["stagegate_cache_versions", "things"] == 1


def test_size_of_a_large_cache_takes_several_scrapes(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        (scenario.nas / f"{number}.csv").write_text(str(number))
    scenario.stage()
    monkeypatch.setattr(node_state, "BUDGET_SECONDS", -1.0)
    shown = [scraped(scenario) for _ in range(20)]
    assert ("stagegate_cache_used_bytes",) not in shown[0]
    assert shown[-1]["stagegate_cache_used_bytes",] == 12 * 4096


def test_both_formats_are_valid_and_say_the_same(scenario: Scenario) -> None:
    scenario.deliver("one")
    scenario.promote("pilot", "production")
    workspace = scenario.node()
    samples = [*node_samples(workspace.cache, workspace.settings), *catalog_samples(workspace)]
    text = exposition(samples, openmetrics=True).decode()
    strict = {family.name: family for family in openmetrics_families(text)}  # type: ignore[no-untyped-call]
    plain = {family.name: family for family in text_string_to_metric_families(exposition(samples).decode())}
    assert strict.keys() == plain.keys() <= FAMILIES.keys()
    for name, family in strict.items():
        assert [sample[:3] for sample in family.samples] == [sample[:3] for sample in plain[name].samples]


def test_requests_do_not_grow_with_versions(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario.deliver("one")
    scenario.promote("pilot")
    read: list[str] = []
    real = DirectoryRecords.read

    def counting(records: DirectoryRecords, key: str) -> bytes | None:
        read.append(key)
        return real(records, key)

    monkeypatch.setattr(DirectoryRecords, "read", counting)

    def reads() -> int:
        scraped(scenario)
        read.clear()
        scraped(scenario)
        return len(read)

    few = reads()
    for number in range(10):
        scenario.deliver(str(number))
        scenario.promote("pilot")
    assert reads() <= few


def test_datasets_beyond_the_limit_are_counted_and_not_read(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefect_stagegate.plugins.observe.monitoring.catalog_state.MOST_DATASETS", 1)
    scenario.deliver("one")
    scenario.stage(dataset="zebras")
    for path in (scenario.folder / "catalog/datasets/zebras/policy").glob("*.json"):
        path.write_text("{")
    shown = scraped(scenario)
    assert shown["stagegate_datasets",] == 2
    assert shown["stagegate_catalog_unreadable_records",] == 0
    assert shown["stagegate_versions", "things"] == 1
    assert ("stagegate_versions", "zebras") not in shown


def test_command_replaces_a_text_file_that_others_may_read(scenario: Scenario, run_stagegate: Run) -> None:
    scenario.deliver("one")
    folder = scenario.folder / "collector"
    folder.mkdir()
    path = folder / "stagegate.prom"
    for _ in range(2):
        done = run_stagegate("metrics", "--textfile", path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(folder.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert values(path.read_bytes())["stagegate_datasets",] == 1
    missing = run_stagegate("metrics", "--textfile", folder / "absent/stagegate.prom")
    assert missing.returncode == 2
    assert "can't be written to" in missing.stderr


def test_unreachable_catalog_is_a_metric(scenario: Scenario, run_stagegate: Run) -> None:
    scenario.deliver("one")
    path = scenario.folder / "stagegate.prom"
    done = run_stagegate("metrics", "--textfile", path, "--catalog", "s3://nowhere/catalog", env=DEAD)
    assert done.returncode == 3
    assert "Connection refused" in done.stderr
    shown = values(path.read_bytes())
    assert shown["stagegate_catalog_up",] == 0
    assert shown["stagegate_steps_total", "things", "ok", "stage"] == 1


def test_node_s_metrics_need_no_catalog(scenario: Scenario, run_stagegate: Run) -> None:
    scenario.deliver("one")
    done = run_stagegate("metrics", "--node-only", "--catalog", "s3://nowhere/catalog", env=DEAD)
    assert done.returncode == 0, done.stderr
    assert not any("catalog" in name for name, *_ in values(done.stdout.encode()))


def test_damaged_counters_leave_the_rest(scenario: Scenario) -> None:
    scenario.deliver("one")
    workspace = scenario.node()
    rows = [("stagegate_steps", "{", 1.0), ("stagegate_steps", "[1, 2, 3]", 1.0), ("stagegate_errors", '["a"]', 1.0)]
    rows += [("unknown", "[]", 1.0), ("stagegate_step_duration_seconds_bucket", '["x", "99"]', 1.0)]
    with sqlite3.connect(workspace.cache.layout.index) as database:
        database.executemany("INSERT INTO counters VALUES (?, ?, ?)", rows)
        database.execute("UPDATE counters SET value = -1e999 WHERE labels LIKE '%transfer%'")
    workspace.cache.memory.note(node_state._SIZES, '{"aa": 7}')
    shown = values(node_metrics_text(workspace.cache, workspace.settings))
    assert shown["stagegate_steps_total", "things", "ok", "stage"] == 1
    assert shown["stagegate_cache_used_bytes",] == 4096


def test_metrics_refuse_a_mistyped_catalog(tmp_path: Path, run_stagegate: Run) -> None:
    done = run_stagegate("metrics")
    assert done.returncode == 3
    assert f"There is no catalog at {tmp_path / 'catalog'}." in done.stderr
