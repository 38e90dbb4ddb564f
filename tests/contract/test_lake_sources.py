"""Tables against the contract of sources, on real servers."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from prefect_stagegate.testing.delta import HandWritten
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.testing.sources import Place, SourceContract

NOBODY = "http://127.0.0.1:1"
"""An address where nobody listens."""


class TestDeltaInFiles(SourceContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        table = HandWritten(fsspec.filesystem("file"), str(tmp_path / "the table"))
        url = f"delta+file://{tmp_path}/the table/"
        return Place(url, put=table.put, remove=table.remove, whole=True, frozen=True)


class TestDeltaOnS3(SourceContract):
    @pytest.fixture
    def place(self, seaweedfs: SeaweedFS, request: pytest.FixtureRequest) -> Place:
        bucket = seaweedfs.bucket(f"delta-{abs(hash(request.node.nodeid)) % 10**9}")
        table = HandWritten(seaweedfs.client(), f"{bucket}/table")
        options = seaweedfs.storage_options
        return Place(
            f"delta+{bucket}/table/",
            options,
            put=table.put,
            remove=table.remove,
            denied={**options, "secret": "this-is-wrong"},
            unreachable=(f"delta+{bucket}/table/", {**options, "endpoint_url": NOBODY}),
            whole=True,
            frozen=True,
        )
