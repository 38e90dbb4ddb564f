"""A node of a site that reads a version while it arrives gives what it has to others, and waits for none of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_stagegate import open_dataset
from prefect_stagegate.jobs.arriving import ArrivingDataset
from prefect_stagegate.plugins.fleet.fleet_settings import FleetSettings
from tests.plugins.fleet.site import SITE, Site

FILES = {f"{number:02}.bin": random.Random(number).randbytes(60_000) for number in range(30)}
NAMES = list(FILES)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, FILES)
    yield made
    made.close()


def go_to(site: Site, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    """Be a node of the site from now on, with a blob server."""
    node = site.node(name)
    own = {
        "cache": str(node.cache.root),
        "node": name,
        "peer_url": node.settings.of(FleetSettings).peer_url,
        "site": SITE,
    }
    for setting, value in (own | {"catalog": str(folder / "catalog")} | settings).items():
        monkeypatch.setenv(f"STAGEGATE_{setting.upper()}", value)


def read(dataset: ArrivingDataset, names: list[str]) -> bool:
    return all(dataset.path(name).read_bytes() == FILES[name] for name in names)


def test_half_arrived_node_serves_what_it_has(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.make()
    # One file a second: the other node is done long before this one.
    go_to(site, tmp_path, "slow", monkeypatch, bandwidth="64KiB/s", objects_in_flight="1")
    with open_dataset("things", wait=False) as slow:
        slow.prefetch(NAMES)
        assert read(slow, NAMES[:4])
        go_to(site, tmp_path, "fast", monkeypatch, bandwidth="", objects_in_flight="", arrival_timeout="15")
        with open_dataset("things", wait=False) as fast:
            fast.prefetch(NAMES[::-1])
            assert read(fast, NAMES[::-1])
            assert not slow.is_here(NAMES[-1])
    assert [site.source.sent[name] for name in NAMES[:4]] == [len(FILES[name]) for name in NAMES[:4]]
