"""What other plugins list leaves out what is retired."""

from __future__ import annotations

from pathlib import Path
from threading import Event

from prefect_stagegate.model import Address
from prefect_stagegate.plugins.fleet.agent import run_agent
from prefect_stagegate.plugins.observe.monitoring.catalog_state import catalog_samples
from prefect_stagegate.plugins.pages.catalog_view import CatalogView
from prefect_stagegate.plugins.retention.retirement import retire
from prefect_stagegate.plugins.watch.watching import watched_targets
from prefect_stagegate.unreadable import UnreadableRecords
from tests.support.scenario import Scenario

GATES = {name: {"require": ["license"], "watch": {"checks": ["license"]}} for name in ("pilot", "production")}


def test_pages_metrics_and_watch_leave_out_what_is_retired(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path, gates=GATES)
    scenario.deliver("a,b\n1,2\n")
    scenario.promote()

    def names() -> tuple[list[str], list[str], set[str]]:
        node = scenario.node()
        overview, _ = CatalogView(node).overview()
        labels = {"@".join(sample.labels[:2]) for sample in catalog_samples(node) if len(sample.labels) >= 2}
        watched = [str(each) for each in watched_targets(node, UnreadableRecords())]
        lines = [line for passage in overview.passages.values() for line in passage.status.lines]
        return [f"{line.dataset}@{line.target}" for line in lines if line.target], watched, labels

    both = ["things@pilot", "things@production"]
    pages, watched, metrics = names()
    assert pages == watched == both
    assert {*both} <= metrics
    retire(scenario.node(), Address("things", "pilot"), "why")
    pages, watched, metrics = names()
    assert pages == watched == ["things@production"]
    assert "things@pilot" not in metrics
    retire(scenario.node(), Address("things"), "why")
    pages, watched, metrics = names()
    assert pages == watched == []
    assert not {*both} & metrics


def test_agent_fetches_nothing_for_retired_targets(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path, gates=GATES)
    scenario.deliver("a,b\n1,2\n")
    first, node, lines = scenario.promote(), scenario.node(cache="gpu-1"), list[str]()
    both = (Address("things", "pilot"), Address("things", "production"))

    def held() -> list[str | None]:
        return [node.cache.refs.get(each.dataset, each.ref) for each in both]

    assert run_agent(node, both, report=lines.append, cancel=Event(), once=True)
    assert held() == [first, first]
    retire(scenario.node(), both[0], "why")
    scenario.deliver("a,b\n3,4\n")
    second = scenario.promote()
    for addresses in ((), both):
        assert run_agent(node, addresses, report=lines.append, cancel=Event(), once=True)
        assert held() == [first, second]
    retire(scenario.node(), both[0], "", undo=True)
    assert run_agent(node, (), report=lines.append, cancel=Event(), once=True)
    assert held() == [second, second]
