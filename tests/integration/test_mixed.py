"""Sources of several families in one dataset, and mirrors of another family than their source."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest

from prefect_stagegate.errors import TransferFailed
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address
from prefect_stagegate.spec import Spec, load_spec
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.workspace import Workspace
from tests.support.http_servers import file_server

Put = Callable[[bytes], Any]
LONG_AGO = 1_370_000_000


@pytest.fixture
def bucket(seaweedfs: SeaweedFS, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret)
    monkeypatch.setenv("AWS_ENDPOINT_URL", seaweedfs.endpoint_url)
    return seaweedfs.bucket(f"mixed-{sum(request.node.name.encode())}")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "web").mkdir()
    with file_server(tmp_path / "web") as url:
        yield url


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (LONG_AGO + len(data),) * 2)


def spec_of(*sources: dict[str, Any]) -> Spec:
    return load_spec({"stagegate": 1, "dataset": "things", "sources": list(sources)}, known_checks={})


def test_change_in_one_of_four_families_fetches_one_object(
    workspace: Workspace, tmp_path: Path, seaweedfs: SeaweedFS, bucket: str, web: str
) -> None:
    memory = fsspec.filesystem("memory")
    put: dict[str, Put] = {
        "s3": partial(seaweedfs.client().pipe_file, f"{bucket}/x/a.bin"),
        "nas": partial(write, tmp_path / "nas/a.bin"),
        "web": partial(write, tmp_path / "web/a.bin"),
        "memory": partial(memory.pipe_file, "/mixed/a.bin"),
    }
    urls = {"s3": f"{bucket}/x/", "nas": str(tmp_path / "nas"), "web": f"{web}/a.bin", "memory": "memory://mixed/"}
    for number, (family, write_it) in enumerate(put.items()):
        write_it(family.encode() * (100 + number))
        time.sleep(0.1)
        write(tmp_path / "one" / family / "a.bin", family.encode() * (100 + number))
    mixed = spec_of(*({"url": url, "into": family} for family, url in urls.items()))
    first = stage(workspace, mixed)
    assert first.files == 4
    assert first.pins
    assert first.pins.strength == "weak"
    assert first.digest == stage(workspace, spec_of({"url": str(tmp_path / "one")})).digest
    for family, write_it in put.items():
        time.sleep(0.1)  # what is younger than 50 ms when it is read is read again
        changed = family.encode() * 200
        write_it(changed)
        time.sleep(0.1)
        after = stage(workspace, mixed)
        assert (after.bytes_fetched, (after.path / family / "a.bin").read_bytes()) == (len(changed), changed)


def test_object_of_a_lost_bucket_comes_from_an_equal_file(
    workspace: Workspace, tmp_path: Path, seaweedfs: SeaweedFS, bucket: str
) -> None:
    data = os.urandom(300_000)
    seaweedfs.client().pipe({f"{bucket}/x/a.bin": data, f"{bucket}/x/b.bin": b"b"})
    write(tmp_path / "nas/a.bin", data)
    version = stage(workspace, spec_of({"url": f"{bucket}/x/", "mirrors": [{"url": str(tmp_path / "nas")}]}))
    seaweedfs.client().rm_file(f"{bucket}/x/a.bin")
    other = open_workspace(tmp_path / "other", tmp_path / "catalog")
    brought = stage(other, Address("things", version.digest))
    assert (brought.path / "a.bin").read_bytes() == data


def test_file_of_equal_size_but_other_content_is_no_substitute(
    workspace: Workspace, tmp_path: Path, seaweedfs: SeaweedFS, bucket: str
) -> None:
    seaweedfs.client().pipe({f"{bucket}/x/a.bin": b"right", f"{bucket}/x/b.bin": b"b"})
    write(tmp_path / "nas/a.bin", b"wrong")
    version = stage(workspace, spec_of({"url": f"{bucket}/x/", "mirrors": [{"url": str(tmp_path / "nas")}]}))
    seaweedfs.client().rm_file(f"{bucket}/x/a.bin")
    other = open_workspace(tmp_path / "other", tmp_path / "catalog")
    with pytest.raises(TransferFailed, match=r"a\.bin") as caught:
        stage(other, Address("things", version.digest))
    assert "nas" in str(caught.value)
    assert other.cache.views.path("things", version.digest) is None
