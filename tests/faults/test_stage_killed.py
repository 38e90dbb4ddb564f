"""The `stagegate stage` command, stopped in the middle, and typed again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address
from prefect_stagegate.model.manifest import seal
from prefect_stagegate.testing.servers import SeaweedFS
from tests.support.proxy import FaultProxy
from tests.support.versions import dataset_names, read_manifest

PART = 1 << 18
IN_FLIGHT = 4
OBJECTS = {f"large/{number}.bin": os.urandom(10 * PART + number) for number in range(4)}
TOTAL = sum(map(len, OBJECTS.values()))


@pytest.fixture
def proxy(seaweedfs: SeaweedFS) -> Iterator[FaultProxy]:
    with FaultProxy(seaweedfs.endpoint_url, delay=0.02) as running:
        yield running


@pytest.fixture
def spec(tmp_path: Path, seaweedfs: SeaweedFS, proxy: FaultProxy) -> Path:
    bucket = f"s3://killed-{tmp_path.name.replace('_', '-')[-20:].strip('-').lower()}"
    seaweedfs.client().mkdir(bucket)
    for name, data in OBJECTS.items():
        seaweedfs.client().pipe(f"{bucket}/{name}", data)
    source = {"url": bucket, "options": {"endpoint_url": proxy.url}}
    path = tmp_path / "things.yaml"
    path.write_text(yaml.safe_dump({"stagegate": 1, "dataset": "things", "sources": [source]}))
    return path


def begin(spec: Path, seaweedfs: SeaweedFS) -> subprocess.Popen[str]:
    settings = {
        "AWS_ACCESS_KEY_ID": seaweedfs.key,
        "AWS_SECRET_ACCESS_KEY": seaweedfs.secret,
        "STAGEGATE_CACHE": str(spec.parent / "cache"),
        "STAGEGATE_CATALOG": str(spec.parent / "catalog"),
        "STAGEGATE_PART_SIZE": str(PART),
        "STAGEGATE_MEMORY": "1MiB",
        "STAGEGATE_OBJECTS_IN_FLIGHT": str(IN_FLIGHT),
    }
    command = [str(Path(sys.executable).with_name("stagegate")), "stage", str(spec)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=os.environ | settings, stdout=pipe, stderr=pipe, text=True)


def stop_halfway(process: subprocess.Popen[str], proxy: FaultProxy, how: signal.Signals) -> None:
    while proxy.bytes < TOTAL / 2:
        assert process.poll() is None, "it ended before it could be stopped"
        time.sleep(0.005)
    process.send_signal(how)


def test_killed_stage_resumes(spec: Path, seaweedfs: SeaweedFS, proxy: FaultProxy) -> None:
    first = begin(spec, seaweedfs)
    stop_halfway(first, proxy, signal.SIGKILL)
    first.communicate()
    assert not list((spec.parent / "cache/views").iterdir())
    output, errors = begin(spec, seaweedfs).communicate(timeout=100)
    # What was under way is read again, and an object that was done, but not remembered yet.
    assert proxy.bytes <= TOTAL + IN_FLIGHT * PART + max(map(len, OBJECTS.values())), errors
    # The same digest as a staging that nobody disturbed.
    calm = open_workspace(spec.parent / "calm", spec.parent / "calm-catalog")
    folder = spec.parent / "copy"
    for name, data in OBJECTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    version = stage(calm, {"stagegate": 1, "dataset": "things", "sources": [{"url": str(folder)}]})
    assert output.splitlines()[0] == version.address
    assert seal(read_manifest(calm.catalog, "things", version.digest).entries()).digest == version.digest


def test_interrupted_stage_ends_in_time_with_one_line(spec: Path, seaweedfs: SeaweedFS, proxy: FaultProxy) -> None:
    process = begin(spec, seaweedfs)
    stop_halfway(process, proxy, signal.SIGINT)
    interrupted = time.monotonic()
    output, errors = process.communicate(timeout=30)
    assert time.monotonic() - interrupted < 10
    assert (process.returncode, output) == (130, "")
    assert errors.startswith("stagegate: interrupted")
    assert len(errors.splitlines()) == 1
    workspace = open_workspace(spec.parent / "cache", spec.parent / "catalog")
    assert workspace.cache.leases.live() == []
    assert Address("things").dataset not in dataset_names(workspace.catalog)
