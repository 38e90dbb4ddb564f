"""A version that a node has. What needs torch is collected where torch is: `make test-torch` runs it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from prefect_stagegate import open_dataset
from prefect_stagegate.jobs.arriving import ArrivingDataset
from tests.plugins.torch.arriving import go_to_node, stage_elsewhere, write_source

collect_ignore = [] if find_spec("torch") else ["test_loaders.py", "test_readers_of_others.py"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node, `other`, that has the version, and the catalog."""
    folder = tmp_path_factory.mktemp("staged")
    stage_elsewhere(folder, str(write_source(folder / "source")))
    return folder


@pytest.fixture
def data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArrivingDataset]:
    """The version on that node."""
    go_to_node(folder, monkeypatch, "other")
    with open_dataset("things", wait=False) as data:
        yield data
