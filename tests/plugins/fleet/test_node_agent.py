"""The node's agent, while it runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.records import DirectoryRecords
from prefect_stagegate.errors import SourceUnavailable
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.fleet.agent import run_agent
from prefect_stagegate.plugins.fleet.nodes import NodeRecord
from tests.support.changed_settings import change_settings
from tests.support.scenario import Scenario

KEPT = (Address("things", "production"),)


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    scenario = Scenario(tmp_path, gates={"production": {"require": ["cache_fit"]}})
    scenario.deliver("a,b\n")
    scenario.promote()
    return scenario


def test_a_fetched_version_is_told_at_once(scenario: Scenario) -> None:
    node, cancel = scenario.node(cache="node"), threading.Event()
    records: list[NodeRecord] = []

    def published(record: NodeRecord) -> None:
        records.append(record)
        if record.refs.get("things@production") == scenario.head("production"):
            cancel.set()

    # Else the next record would come after 100 s.
    stop = threading.Timer(20, cancel.set)
    stop.start()
    run_agent(node, KEPT, report=lambda _: None, published=published, cancel=cancel)
    stop.cancel()
    assert records[-1].refs == {"things@production": scenario.head("production")}


def test_a_record_that_is_not_told_further_ends_nothing(scenario: Scenario) -> None:
    lines: list[str] = []

    def published(_: NodeRecord) -> None:
        raise SourceUnavailable("Kubernetes' API can't be used")

    node = scenario.node(cache="node")
    assert not run_agent(node, KEPT, report=lines.append, published=published, cancel=threading.Event(), once=True)
    assert lines[-1] == "The node's record was written, but not told further: Kubernetes' API can't be used"
    assert node.cache.refs.get("things", "production") == scenario.head("production")


class _FaultyRecords(DirectoryRecords):
    """A store whose adapter has a fault that nobody foresaw, at first."""

    faults = 2

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        if self.faults:
            self.faults -= 1
            raise ZeroDivisionError("division by zero")
        return super().keys(prefix, after)


def test_a_fault_in_a_round_ends_no_agent(scenario: Scenario) -> None:
    node, cancel = scenario.node(cache="node"), threading.Event()
    catalog = Catalog(_FaultyRecords(scenario.folder / "catalog"))
    node = change_settings(replace(node, catalog=catalog), node_timeout=1.0)
    lines: list[str] = []

    def published(record: NodeRecord) -> None:
        if record.refs:
            cancel.set()

    stop = threading.Timer(20, cancel.set)
    stop.start()
    run_agent(node, KEPT, report=lines.append, published=published, cancel=cancel)
    stop.cancel()
    assert lines[0] == "A round failed: ZeroDivisionError: division by zero"
    assert node.cache.refs.get("things", "production") == scenario.head("production")


def test_a_round_without_news_reads_no_manifest(scenario: Scenario) -> None:
    """Of a thousand agents each has its round several times in a minute, and a manifest may have 100 MB."""
    node = scenario.node(cache="node")
    assert run_agent(node, KEPT, report=print, cancel=threading.Event(), once=True)
    (manifest,) = Path(node.catalog.url).rglob("manifests/*.parquet")
    manifest.unlink()
    assert run_agent(node, KEPT, report=print, cancel=threading.Event(), once=True)
