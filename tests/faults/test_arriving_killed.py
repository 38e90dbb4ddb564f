"""Readers of an arriving version, and the processes that fetch it, are killed at random: KILLS=200 for the whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest

from prefect_stagegate.errors import CacheError
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.read import open_cache
from prefect_stagegate.jobs.running_jobs import running_jobs
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Version
from tests.support.webservers import WebServer, rclone

KILLS = int(os.environ.get("KILLS", "5"))
FILES, SIZE = 60, 100_000
BANDWIDTH = "2MB/s"
"""All files take three seconds: kills come while they do."""
READER = """
import random, sys
from hashlib import sha256
from prefect_stagegate import open_dataset
with open_dataset("things", wait=False) as dataset:
    names = dataset.files()
    random.shuffle(names)
    dataset.prefetch(names[::2])
    for name in names:
        with dataset.open(name) as file:
            assert sha256(file.read()).hexdigest() == name.partition(".")[0], name
print("read all")
"""

pytestmark = [pytest.mark.system, pytest.mark.timeout(120 + 60 * KILLS)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with rclone("http", tmp_path_factory.mktemp("http"), "--read-only") as running:
        for number in range(FILES):
            data = random.Random(number).randbytes(SIZE)
            (running.root / f"{sha256(data).hexdigest()}.bin").write_bytes(data)
        yield running


@pytest.fixture
def version(tmp_path: Path, server: WebServer) -> Version:
    other = open_workspace(tmp_path / "other", tmp_path / "catalog")
    return stage(other, {"stagegate": 1, "dataset": "things", "sources": [{"url": server.url}]})


def test_readers_end_whoever_is_killed(tmp_path: Path, version: Version) -> None:
    for number in range(KILLS):
        chance = random.Random(number)
        cache = tmp_path / f"cache-{number}"
        env = {
            **os.environ,
            "STAGEGATE_CATALOG": str(tmp_path / "catalog"),
            "STAGEGATE_CACHE": str(cache),
            "STAGEGATE_BANDWIDTH": BANDWIDTH,
            "STAGEGATE_ARRIVAL_TIMEOUT": "60",
        }
        readers = [_reader(env), _reader(env)]
        time.sleep(chance.uniform(0.5, 4))
        killed = chance.choice(["fetcher", "reader", "both"])
        if killed != "reader":
            _kill_fetcher(cache)
        if killed != "fetcher":
            readers.pop().kill()
        readers.append(_reader(env))  # which uses what came
        for reader in readers:
            printed, _ = reader.communicate(timeout=100)
            assert (reader.returncode, printed) == (0, "read all\n"), (number, killed)


def _reader(env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", READER], env=env, stdout=subprocess.PIPE, text=True)


def _kill_fetcher(cache: Path) -> None:
    with suppress(ProcessLookupError, CacheError):  # it has ended, or has not begun
        for job in running_jobs(open_cache(cache)):
            os.kill(job.pid, signal.SIGKILL)
