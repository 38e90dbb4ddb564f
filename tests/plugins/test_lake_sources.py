"""Tables and repositories against the contract of sources, on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fsspec
import pytest

from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.testing.sources import Place, SourceContract
from tests.plugins.hub.small_hub import small_hub
from tests.plugins.lake.delta import HandWritten
from tests.plugins.lake.iceberg import AnyBytes, sql_catalog, store_of

NOBODY = "http://127.0.0.1:1"
"""An address where nobody listens."""
WHOLE = ("single objects", "bare folders")
"""A table's URL names all of it."""


class TestDeltaInFiles(SourceContract, without=(*WHOLE, "credentials", "servers")):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        table = HandWritten(fsspec.filesystem("file"), str(tmp_path / "the table"))
        url = f"delta+file://{tmp_path}/the table/"
        return Place(url, put=table.put, remove=table.remove, frozen=True)


class TestDeltaOnS3(SourceContract, without=WHOLE):
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
            anonymous={"endpoint_url": seaweedfs.endpoint_url},
            unreachable=(f"delta+{bucket}/table/", {**options, "endpoint_url": NOBODY}),
            frozen=True,
        )


class TestIcebergInFiles(SourceContract, without=(*WHOLE, "credentials", "servers")):
    """A SQL catalog; folders with names that are hard to spell."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        properties = sql_catalog(tmp_path, f"file://{tmp_path}/ware house", {})
        table = AnyBytes("local", properties, fsspec.filesystem("file"))
        url = "iceberg://local/lake.things"
        return Place(url, properties, put=table.put, remove=table.remove, frozen=True)


class TestIcebergOnS3(SourceContract, without=WHOLE):
    """A SQL catalog whose files lie on S3."""

    @pytest.fixture
    def place(self, seaweedfs: SeaweedFS, tmp_path: Path, request: pytest.FixtureRequest) -> Place:
        bucket = seaweedfs.bucket(f"iceberg-{abs(hash(request.node.nodeid)) % 10**9}")
        properties = sql_catalog(tmp_path, f"{bucket}/warehouse", store_of(seaweedfs))
        table = AnyBytes("lake", properties, seaweedfs.client())
        return Place(
            "iceberg://lake/lake.things",
            properties,
            put=table.put,
            remove=table.remove,
            denied={**properties, **store_of(seaweedfs, "this-is-wrong")},
            anonymous={name: value for name, value in properties.items() if "key" not in name},
            unreachable=("iceberg://lake/lake.things", {**properties, "type": "rest", "uri": NOBODY}),
            frozen=True,
        )


class TestHub(SourceContract):
    """A gated dataset of a small hub: most files are large ones, behind a redirect."""

    @pytest.fixture
    def place(self) -> Iterator[Place]:
        with small_hub() as hub:
            repo = "datasets/me/things"
            hub.gates[repo] = "hf_owner-token"
            options = {"endpoint": hub.endpoint, "token": "hf_owner-token"}
            yield Place(
                f"hf://{repo}/",
                options,
                put=partial(hub.put, repo),
                remove=partial(hub.remove, repo),
                denied={**options, "token": "hf_of-somebody-else"},
                anonymous={"endpoint": hub.endpoint},
                unreachable=(f"hf://{repo}/", {**options, "endpoint": NOBODY}),
                keeps=True,
            )
