"""Servers of object stores that plugins read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from fuzzing.fixtures import scratch, soon

from tests.plugins.clouds import Cloud, azurite, fake_gcs

if TYPE_CHECKING:
    pass

__all__ = ["scratch", "soon"]


@pytest.fixture(scope="session", name="gcs")
def _gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """One server of Google's protocol for this process. Take a bucket of your own: `gcs.bucket("my-test")`."""
    with fake_gcs(tmp_path_factory.mktemp("gcs")) as server:
        yield server


@pytest.fixture(scope="session", name="azure")
def _azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """One server of Azure's protocol for this process, from npm: tests that name it are marked `system`."""
    with azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server
