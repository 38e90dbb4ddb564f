"""One dataset of a repository, two tables and a folder: a change in each fetches what is new, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from pyiceberg.catalog import load_catalog

from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import preview, stage
from prefect_stagegate.model import Address, Version
from prefect_stagegate.spec import Spec, load_spec
from prefect_stagegate.workspace import Workspace
from tests.plugins.hub.small_hub import SmallHub, small_hub
from tests.support.versions import read_origins

REPO = "datasets/me/labels"
Change = Callable[[], object]


@pytest.fixture
def hub() -> Iterator[SmallHub]:
    with small_hub() as hub:
        yield hub


@pytest.fixture
def spec(tmp_path: Path, hub: SmallHub) -> Spec:
    catalog = {"type": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": f"file://{tmp_path}/warehouse"}
    sources = [
        {"url": f"hf://{REPO}", "into": "labels", "options": {"endpoint": hub.endpoint, "token": False}},
        {"url": "iceberg://lake/ns.flights", "into": "flights", "options": catalog},
        {"url": f"delta+file://{tmp_path}/weather", "into": "weather"},
        {"url": f"file://{tmp_path}/nas", "into": "reference"},
    ]
    return load_spec({"stagegate": 1, "dataset": "things", "sources": sources}, known_checks={})


@pytest.fixture
def changes(tmp_path: Path, hub: SmallHub, spec: Spec) -> dict[str, Change]:
    """What adds one file to each of the sources; each was called twice already."""
    catalog = load_catalog("lake", **spec.sources[1].options, init_catalog_tables="true")
    catalog.create_namespace("ns")
    table = catalog.create_table("ns.flights", schema=pa.schema([("number", pa.int64())]))
    (tmp_path / "nas").mkdir()
    numbers = iter(range(100))

    def rows() -> pa.Table:
        return pa.table({"number": [next(numbers)]})

    additions: dict[str, Change] = {
        "labels": lambda: hub.put(REPO, f"{next(numbers)}.bin", bytes(range(200)) * 10),
        "flights": lambda: table.append(rows()),
        "weather": lambda: write_deltalake(tmp_path / "weather", rows(), mode="append"),
        "reference": lambda: _write_long_ago(tmp_path / f"nas/{next(numbers)}.csv", b"a,b\n"),
    }
    for change in (*additions.values(), *additions.values()):
        change()
    return additions


def _write_long_ago(path: Path, data: bytes) -> None:
    """A file that was written just now is read again, lest it changes within its clock's grain."""
    path.write_bytes(data)
    os.utime(path, (1_000_000, 1_000_000))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "cache", tmp_path / "records")


def paths(version: Version) -> dict[str, int]:
    files = (path for path in version.path.rglob("*") if path.is_file())
    return {str(path.relative_to(version.path)): path.stat().st_size for path in files}


def test_what_is_new_in_each_source_is_all_that_is_fetched(
    workspace: Workspace, spec: Spec, changes: dict[str, Change]
) -> None:
    first = stage(workspace, spec)
    assert first.files == 8
    for change in changes.values():
        change()
    planned = {planned.path for planned in preview(workspace, spec) if planned.action == "fetch"}
    second = stage(workspace, spec)
    new = paths(second).keys() - paths(first).keys()
    assert {path.partition("/")[0] for path in new} == changes.keys()
    assert (len(new), planned) == (4, new)
    assert second.bytes_fetched == sum(size for path, size in paths(second).items() if path in new)
    assert not stage(workspace, spec).bytes_fetched


def test_the_state_of_each_source_is_recorded(workspace: Workspace, spec: Spec, changes: dict[str, Change]) -> None:
    version = stage(workspace, spec)
    states = {
        origin.path.partition("/")[0]: origin.state
        for origin in read_origins(workspace.catalog, "things", version.digest)
    }
    assert states["weather"] == "1"
    assert states["flights"].isdigit()
    assert len(states["labels"]) == 40
    assert states["reference"] == ""


def test_an_older_version_is_brought_to_another_node(
    workspace: Workspace, spec: Spec, changes: dict[str, Change], tmp_path: Path
) -> None:
    first = stage(workspace, spec)
    for change in changes.values():
        change()
    stage(workspace, spec)
    brought = stage(open_workspace(tmp_path / "other", tmp_path / "records"), Address("things", first.digest))
    assert paths(brought) == paths(first)
