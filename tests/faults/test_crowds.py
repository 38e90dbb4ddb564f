"""Many processes at one cache: all is fetched about once, one result comes out, and nobody loses what they hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.catalog.refs import ref_heads
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.upkeep.verify import verify
from prefect_stagegate.testing.servers import SeaweedFS
from tests.support.proxy import FaultProxy

CROWD = Path(__file__).with_name("crowd.py")
DATASETS = 5
FOLDERS = 10
"""Each dataset takes six of ten folders, so every object is in three of the five."""
WASTE = 1.1
"""Bytes that may be fetched, as a share of the set's size."""


def sizes(objects: int) -> dict[str, int]:
    """The crowd's objects: most small, a few of several parts."""
    return {
        f"{number % FOLDERS}/{number:04}.bin": 300_000 + number if number % 97 == 0 else 1000 + 7 * number
        for number in range(objects)
    }


def fill(server: SeaweedFS, bucket: str, objects: dict[str, int]) -> None:
    sys.path.insert(0, str(CROWD.parent))
    try:
        from crowd import content
    finally:
        sys.path.pop(0)
    client = server.client()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: client.pipe(f"{bucket}/{key}", content(key, objects[key])), objects))


def specs(bucket: str, endpoint: str) -> list[dict[str, Any]]:
    return [
        {
            "stagegate": 1,
            "dataset": f"crowd-{number}",
            "sources": [
                {
                    "url": f"{bucket}/",
                    "include": [f"{(2 * number + folder) % FOLDERS}/**" for folder in range(6)],
                    "options": {"endpoint_url": endpoint},
                }
            ],
        }
        for number in range(DATASETS)
    ]


@pytest.mark.parametrize(
    ("processes", "objects"),
    [
        pytest.param(12, 300, id="12 processes, 300 objects"),
        pytest.param(50, 1000, id="50 processes, 1000 objects", marks=[pytest.mark.system, pytest.mark.timeout(900)]),
    ],
)
def test_a_crowd_fetches_once_agrees_and_loses_nothing(
    processes: int, objects: int, seaweedfs: SeaweedFS, proxy: FaultProxy, tmp_path: Path
) -> None:
    bucket = seaweedfs.bucket(f"crowd-{processes}")
    wanted = sizes(objects)
    fill(seaweedfs, bucket, wanted)
    superseded = stage_twice(tmp_path)
    (tmp_path / "told").mkdir()
    plan = {
        "root": str(tmp_path),
        "specs": specs(bucket, proxy.url),
        "processes": processes,
        "sizes": wanted,
        "superseded": superseded,
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    settings = {
        "AWS_ACCESS_KEY_ID": seaweedfs.key,
        "AWS_SECRET_ACCESS_KEY": seaweedfs.secret,
        "STAGEGATE_OBJECTS_IN_FLIGHT": "4",
        "STAGEGATE_PART_SIZE": "64KiB",
        "STAGEGATE_MEMORY": "1MiB",
    }
    command = [sys.executable, str(CROWD), str(tmp_path / "plan.json")]
    done = subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, text=True, check=False, timeout=800
    )
    # On a busy machine a process may wait so long for another's object that it says so.
    errors = [line for line in done.stderr.splitlines() if not line.startswith("waiting since ")]
    assert (done.returncode, errors) == (0, [])

    workspace = open_workspace(tmp_path / "cache", tmp_path / "catalog")
    reports = [(tmp_path / "told" / str(number)).read_text().split() for number in range(processes)]
    digests = {dataset: {digest for name, digest, _ in reports if name == dataset} for dataset, _, _ in reports}
    assert all(len(unique) == 1 for unique in digests.values()), digests
    assert {name: {ref_heads(workspace.catalog, name)["latest"].entry.digest} for name in digests} == digests
    total = sum(wanted.values())
    print(f"{processes} processes fetched {proxy.bytes} bytes of {total}: {proxy.bytes / total:.3f}")
    assert total <= proxy.bytes <= WASTE * total
    assert superseded in json.loads((tmp_path / "told" / "collector").read_text())
    assert not workspace.cache.leases.live()
    assert not list(workspace.cache.layout.leases.iterdir())
    assert not [path for path in workspace.cache.layout.ingest.iterdir() if not path.name.startswith("unsynced")]
    assert not list(workspace.cache.layout.trash.iterdir())
    assert not verify(workspace).damaged


def stage_twice(root: Path) -> str:
    """Give the collector something to take: a version that no ref names any more."""
    workspace = open_workspace(root / "cache", root / "catalog")
    (root / "old").mkdir()
    versions = []
    for text in ("first", "second"):
        (root / "old" / "data.csv").write_text(text)
        versions.append(stage(workspace, {"stagegate": 1, "dataset": "old", "sources": [{"url": str(root / "old")}]}))
    return versions[0].address
