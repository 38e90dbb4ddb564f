"""Stagings that several processes read for: what they make, and what is left when some of them die."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefect_stagegate.errors import Cancelled, StagegateError, TransferFailed
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Version
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.transport.transfer import processes, transfer_engine
from prefect_stagegate.transport.transfer.progress import Meter
from tests.support.http_servers import FileHandler, http_server
from tests.support.proxy import FaultProxy
from tests.support.waiting import eventually

FILES = 150
MANY = 20
"""Waiting objects from which workers are started here."""


class SlowHandler(FileHandler):
    """Sends files after a while, so that a staging lasts."""

    def do_GET(self) -> None:
        if self.path.endswith(".bin"):
            time.sleep(0.15)
        super().do_GET()


class Node:
    """A node, and a folder of many small files behind a slow server."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, folder / "files"
        self.files.mkdir()
        for number in range(FILES):
            path = self.files / f"{number:03}.bin"
            path.write_bytes(os.urandom(2000 + number))
            os.utime(path, (1e9, 1e9))  # so old that their times are believed
        self.url = str(self.files)
        self.meter = Meter()

    def spec(self, **more: Any) -> dict[str, Any]:
        return {"stagegate": 1, "dataset": "things", "sources": [{"url": self.url}], **more}

    def stage(self, cancel: threading.Event | None = None, cache: str = "cache", **more: Any) -> Version:
        workspace = open_workspace(self.folder / cache, self.folder / "catalog")
        return stage(workspace, self.spec(**more), progress=self.meter, cancel=cancel)

    def left(self) -> list[str]:
        """What lies in the folder of objects on their way in."""
        names = [path.name for path in (self.folder / "cache/ingest").iterdir()]
        # Marks stay until the next sync where a staging ended without one.
        return [name for name in names if not name.startswith("unsynced-")]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(transfer_engine, "SHARED_OBJECTS", MANY)
    monkeypatch.setenv("STAGEGATE_PROCESSES", "3")
    monkeypatch.setenv("STAGEGATE_OBJECTS_IN_FLIGHT", "12")
    node = Node(tmp_path)
    with http_server(partial(SlowHandler, directory=str(node.files))) as url:
        node.url = f"{url}/"
        yield node
    assert eventually(lambda: not workers(os.getpid()), 5)


def workers(parent: int) -> list[int]:
    """The worker processes of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status, words = (entry / "stat").read_text(), (entry / "cmdline").read_text()
            except OSError:
                continue
            if "worker_process" in words and int(status.rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.name))
    return found


def meanwhile(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


# ── what they make ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_version_is_the_same_and_nothing_is_left(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    version = node.stage()
    assert version.files == FILES
    assert node.meter.stats.processes > 1
    assert node.meter.stats.fetched == version.bytes == node.meter.snapshot().bytes_moved
    assert list((node.folder / "cache/ingest").iterdir()) == []
    assert not workers(os.getpid())
    monkeypatch.setenv("STAGEGATE_PROCESSES", "1")
    again = node.stage(cache="another")
    assert (again.digest, node.meter.stats.processes) == (version.digest, 1)
    assert node.stage().bytes_fetched == 0  # all are remembered


def test_few_objects_or_a_limited_server_keep_one_process(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGEGATE_CONNECTIONS", "12")
    node.stage()
    assert node.meter.stats.processes == 1
    monkeypatch.delenv("STAGEGATE_CONNECTIONS")
    monkeypatch.setattr(transfer_engine, "SHARED_OBJECTS", FILES + 1)
    node.stage(cache="another")
    assert node.meter.stats.processes == 1


def test_credentials_come_from_the_starting_process(tmp_path: Path, node: Node, seaweedfs: SeaweedFS) -> None:
    bucket = seaweedfs.bucket("workers-of-a-block").removeprefix("s3://")
    for number in range(60):
        seaweedfs.client().pipe(f"{bucket}/{number}.bin", os.urandom(1000))
    workspace = open_workspace(
        node.folder / "cache",
        node.folder / "catalog",
        resolve_credentials=lambda _: {"key": seaweedfs.key, "secret": seaweedfs.secret},
    )
    with FaultProxy(seaweedfs.endpoint_url, delay=0.2) as proxy:
        source = {"url": f"s3://{bucket}/", "options": {"endpoint_url": proxy.url}, "credentials": "aws-credentials/b"}
        version = stage(workspace, node.spec(sources=[source]), progress=node.meter)
    assert version.files == 60
    assert node.meter.stats.processes > 1


def test_failed_objects_are_named_and_the_others_stay(node: Node) -> None:
    broken = node.files / "140.bin"

    def vanish() -> None:
        eventually(lambda: node.meter.snapshot().objects_done)
        broken.unlink()

    thread = meanwhile(vanish)
    with pytest.raises(TransferFailed, match=r"140\.bin") as caught:
        node.stage()
    thread.join()
    assert [failure.object for failure in caught.value.failures] == ["140.bin"]
    assert node.left() == []


def test_too_many_failures_end_the_workers_soon(node: Node) -> None:
    def vanish() -> None:
        eventually(lambda: node.meter.stats.processes > 1)
        for path in node.files.iterdir():
            path.unlink()

    thread = meanwhile(vanish)
    with pytest.raises(TransferFailed) as caught:
        node.stage()
    thread.join()
    # What was under way may fail, too, and nothing else is begun.
    assert len(caught.value.failures) < 40
    assert node.left() == []


def test_staging_goes_on_where_no_process_can_be_started(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/interpreter")
    assert node.stage().files == FILES
    assert node.meter.stats.processes == 1
    assert "no further worker process can be started: No such file or directory" in caplog.text


# ── processes that die ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
def test_objects_of_a_lost_worker_are_read_by_others(
    sign: signal.Signals, node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if sign == signal.SIGSTOP:
        monkeypatch.setattr(processes, "SILENT_SECONDS", 10.0)

    def lose() -> None:
        eventually(lambda: node.meter.snapshot().objects_done > MANY)
        os.kill(workers(os.getpid())[0], sign)

    thread = meanwhile(lose)
    with caplog.at_level(logging.WARNING):
        version = node.stage()
    thread.join()
    assert version.files == FILES
    assert node.left() == []
    # One that was stopped may have had nothing left to read.
    assert sign == signal.SIGSTOP or "a worker process was killed by signal 9; others read its" in caplog.text


def test_workers_that_die_in_a_row_are_an_error(node: Node) -> None:
    ended = threading.Event()

    def kill_all() -> None:
        while not ended.wait(0.01):
            for worker in workers(os.getpid()):
                os.kill(worker, signal.SIGKILL)

    thread = meanwhile(kill_all)
    try:
        with pytest.raises(StagegateError, match=r"was killed by signal 9, and so did the one before it") as caught:
            node.stage()
    finally:
        ended.set()
        thread.join()
    assert "STAGEGATE_PROCESSES=1" in caught.value.hint
    assert node.left() == []


def test_stopped_staging_ends_its_workers_in_time(node: Node) -> None:
    cancel = threading.Event()
    moments: list[float] = []

    def stop() -> None:
        eventually(lambda: node.meter.snapshot().objects_done > MANY)
        moments.append(time.monotonic())
        cancel.set()

    thread = meanwhile(stop)
    with pytest.raises(Cancelled):
        node.stage(cancel)
    thread.join()
    assert time.monotonic() - moments[0] < 2.5
    assert not workers(os.getpid())
    assert node.left() == []
    before = node.meter.snapshot().objects_done
    version = node.stage()
    assert version.bytes_fetched < version.bytes  # what came in before stayed
    assert before


def test_killed_staging_leaves_no_process(node: Node, tmp_path: Path) -> None:
    (tmp_path / "things.yaml").write_text(yaml.safe_dump(node.spec()))
    program = "from prefect_stagegate.transport.transfer import transfer_engine; transfer_engine.SHARED_OBJECTS = 20\n"
    program += "from prefect_stagegate.cli import main; main()"
    words = ["stage", str(tmp_path / "things.yaml"), "--cache", str(tmp_path / "cache"), "--catalog"]
    command = subprocess.Popen([sys.executable, "-c", program, *words, str(tmp_path / "catalog")])
    found = eventually(lambda: workers(command.pid))
    assert len(found) >= 1
    eventually(lambda: len(list((tmp_path / "cache/blobs").glob("*/*"))) > MANY)
    command.kill()
    command.wait()
    # A process that has ended and whose parent did not ask for it has no command line.
    lines = [Path(f"/proc/{worker}/cmdline") for worker in found]
    assert eventually(lambda: not any(line.exists() and line.read_bytes() for line in lines), 2)
    version = node.stage()
    assert version.files == FILES
    assert version.bytes_fetched < version.bytes
