"""Listings that drop or repeat a page: what can be found out ends the staging, and what was deleted does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.errors import SourceUnavailable
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.missing_objects import MAX_PROBES
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import LATEST
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.workspace import Workspace
from tests.support.listings import Lie, Pages
from tests.support.proxy import FaultProxy

KEYS = [f"{number:03}.bin" for number in range(200)]
PAGE = 40


@pytest.fixture
def proxy(seaweedfs: SeaweedFS) -> Iterator[FaultProxy]:
    with FaultProxy(seaweedfs.endpoint_url) as running:
        running.pages = Pages(PAGE)
        yield running


@pytest.fixture
def workspace(tmp_path: Path, seaweedfs: SeaweedFS) -> Workspace:
    keys = {"key": seaweedfs.key, "secret": seaweedfs.secret}
    return open_workspace(tmp_path / "cache", tmp_path / "catalog", resolve_credentials=lambda _: keys)


@pytest.fixture
def spec(
    seaweedfs: SeaweedFS, proxy: FaultProxy, workspace: Workspace, request: pytest.FixtureRequest
) -> dict[str, Any]:
    """A dataset that is staged once already."""
    url, client = seaweedfs.bucket(f"listings-{abs(hash(request.node.name))}"), seaweedfs.client()
    client.pipe({f"{url}/{key}": key.encode() for key in KEYS})
    source = {"url": url, "options": {"endpoint_url": proxy.url}, "credentials": "aws-credentials/owner"}
    spec = {"stagegate": 1, "dataset": "listed", "sources": [source]}
    assert stage(workspace, spec).files == len(KEYS)
    return spec


def lie_once(proxy: FaultProxy, lie: Lie, page: int = 2) -> None:
    assert proxy.pages
    proxy.pages.lie = lambda number: lie if number == page else None


@pytest.mark.parametrize("lie", list(Lie))
def test_a_page_that_is_dropped_or_repeated_is_found(
    lie: Lie, proxy: FaultProxy, workspace: Workspace, spec: dict[str, Any]
) -> None:
    before = workspace.catalog.history("listed", LATEST)
    lie_once(proxy, lie)
    with pytest.raises(SourceUnavailable) as caught:
        stage(workspace, spec)
    assert caught.value.retryable
    assert caught.value.object in KEYS
    assert workspace.catalog.history("listed", LATEST) == before
    assert len(list(workspace.cache.views.all())) == 1


def test_deleted_objects_are_left_out_for_few_requests(
    proxy: FaultProxy, workspace: Workspace, spec: dict[str, Any], seaweedfs: SeaweedFS
) -> None:
    gone = KEYS[10:170]
    seaweedfs.client().rm([f"{spec['sources'][0]['url']}/{key}" for key in gone])
    before = proxy.requests
    assert stage(workspace, spec).files == len(KEYS) - len(gone)
    assert proxy.requests - before <= MAX_PROBES + 3


def test_objects_that_the_spec_excludes_are_not_requested(
    proxy: FaultProxy, workspace: Workspace, spec: dict[str, Any]
) -> None:
    narrower = {**spec, "sources": [{**spec["sources"][0], "include": ["00*.bin"], "into": "few/"}]}
    before = proxy.requests
    assert stage(workspace, narrower).files == 10
    assert proxy.requests - before == len(KEYS) // PAGE
