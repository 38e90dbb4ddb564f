"""What pages cost the catalog's store: warm pages cost the same with few versions and with many."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.records import open_records
from prefect_stagegate.jobs.environment import capture_environment
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.plugins.pages import copies
from tests.plugins.fleet.large_nodes import write_nodes
from tests.plugins.pages.page_server import page_server, text_of
from tests.plugins.pages.test_picture import drawn
from tests.support.large_catalog import write_large_catalog
from tests.support.records import CountedRecords
from tests.support.scenario import Scenario

PAGES = ("/", "/datasets", "/datasets/set-003", "/datasets/set-003/policy", "/nodes", "/nodes/gpu-1")


def test_requests_of_warm_pages_do_not_grow_with_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "FRESH", 600.0)
    monkeypatch.setattr("prefect_stagegate.plugins.pages.catalog_view.OVERVIEW_FRESH", 600.0)
    monkeypatch.setattr("prefect_stagegate.plugins.pages.catalog_view.HOLDERS_FRESH", 600.0)
    monkeypatch.setattr("prefect_stagegate.plugins.fleet.node_pages.FRESH", 600.0)
    counts: list[dict[str, Counter[str]]] = []
    for versions in (3, 40):
        store = CountedRecords(open_records(f"memory://pages-{versions}", {}))
        environment = capture_environment(Settings.from_environment({}), tmp_path)
        write_nodes(store, 9, *write_large_catalog(store, environment, 9, versions))
        node = replace(Scenario(tmp_path, f"none-{versions}").node(), catalog=Catalog(store))
        newest = node.catalog.history("set-003", "latest")[-1].digest.removeprefix("sha256:")
        version = f"/datasets/set-003/versions/{newest}"
        with page_server(node) as url:
            cost = {}
            for path in (*PAGES, version, f"{version}/files"):
                text_of(url + path)
                store.calls.clear()
                text_of(url + path)
                cost[path.replace(newest, "HEX")] = Counter(store.calls)
        counts.append(cost)
    assert counts[0] == counts[1]
    assert max(cost.total() for cost in counts[1].values()) <= 4


def test_lists_are_shown_in_parts(tmp_path: Path) -> None:
    store = open_records("memory://pages-parts", {})
    write_large_catalog(store, capture_environment(Settings.from_environment({}), tmp_path), 9, 60)
    node = replace(Scenario(tmp_path, "none").node(), catalog=Catalog(store))
    entries = node.catalog.history("set-008", "latest")
    with page_server(node) as url:
        parts = [text_of(f"{url}/datasets/set-008?page={number}") for number in (1, 2, 3)]
    for position, entry in enumerate(reversed(entries)):
        shown = [f'/versions/{entry.digest.removeprefix("sha256:")}"' in part for part in parts]
        assert shown.index(True) == position // 25
    assert "51 to 60 of 60" in parts[2]
    assert max(map(len, parts)) < 100_000


def test_picture_of_many_datasets_is_bounded(tmp_path: Path) -> None:
    store = open_records("memory://pages-picture", {})
    write_large_catalog(store, capture_environment(Settings.from_environment({}), tmp_path), 60, 3)
    node = replace(Scenario(tmp_path, "none").node(), catalog=Catalog(store))
    with page_server(node) as url:
        first, second, inbox = (text_of(url + path) for path in ("/datasets", "/datasets?page=2", "/"))
    assert [*drawn(first), *drawn(second)] == [f"set-{number:03}" for number in range(60)]
    assert len(drawn(first)) == 50
    rows = drawn(inbox)
    # Those come first that need somebody most.
    assert (len(rows), "set-003" in rows, "set-008" in rows) == (6, True, False)
    assert "6 of 60 datasets" in inbox
    assert max(map(len, (first, second, inbox))) < 130_000
