"""Ctrl-C and SIGTERM end a command within two seconds, whatever it waits for, and what it started ends with it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.leases import locked
from prefect_stagegate.cli.interrupts import GRACE
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from tests.support.waiting import eventually

LIMIT = 10.0
"""Seconds between the signal and the end: two, and what a machine that is busy with other tests adds."""
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
CONTRACT = {
    "tables": {
        "rows": {
            "files": "*.csv",
            "suite": {"expectations": [{"type": "expect_column_to_exist", "kwargs": {"column": "a"}}]},
        }
    }
}


@dataclass
class Trickle:
    """A server that begins to answer and never ends."""

    address: str
    is_answering: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def trickle() -> Iterator[Trickle]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        running = Trickle(f"127.0.0.1:{server.getsockname()[1]}")
        threading.Thread(target=_answer_for_ever, args=(server, running), daemon=True).start()
        yield running


def _answer_for_ever(server: socket.socket, running: Trickle) -> None:
    with suppress(OSError):
        while True:
            threading.Thread(target=_trickle, args=(server.accept()[0], running), daemon=True).start()


def _trickle(connection: socket.socket, running: Trickle) -> None:
    with connection, suppress(OSError):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"1\r\n \r\n")
            running.is_answering.set()
            time.sleep(0.05)


Begin = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Start the installed command with cache and catalog of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str | Path, **settings: str) -> subprocess.Popen[str]:
        places = {"STAGEGATE_CACHE": str(tmp_path / "cache"), "STAGEGATE_CATALOG": str(tmp_path / "catalog")}
        process = subprocess.Popen(
            [Path(sys.executable).with_name("stagegate"), *words],
            env={**os.environ, **places, "HOME": str(tmp_path), **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def spec(folder: Path, **values: Any) -> Path:
    path = folder / "things.json"
    path.write_text(json.dumps({"stagegate": 1, "dataset": "things", **values}))
    return path


def stage_rows(folder: Path, size: int = 4) -> None:
    (folder / "nas").mkdir()
    (folder / "nas/a.csv").write_bytes(b"a\n1\n".ljust(size, b"\n"))
    path = spec(folder, sources=[{"url": str(folder / "nas")}], contract=CONTRACT)
    stage(open_workspace(folder / "cache", folder / "catalog"), path)


def wait_until(holds: Callable[[], object], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def ends_in_time(process: subprocess.Popen[str], sent: signal.Signals) -> str:
    process.send_signal(sent)
    signalled = time.monotonic()
    process.wait(timeout=30)
    seconds = time.monotonic() - signalled
    errors = process.communicate()[1]
    assert (process.returncode, "Traceback" in errors) == (CODES[sent], False), errors
    assert seconds < LIMIT
    return errors


def test_a_command_is_left_less_than_two_seconds() -> None:
    assert GRACE < 2


@pytest.mark.parametrize("sent", CODES)
@pytest.mark.parametrize("scheme", ["http", "s3"])
def test_signal_ends_a_listing_that_never_ends(
    scheme: str, sent: signal.Signals, begin: Begin, trickle: Trickle, tmp_path: Path
) -> None:
    options = {"endpoint_url": f"http://{trickle.address}"}
    source = {"http": {"url": f"http://{trickle.address}/"}, "s3": {"url": "s3://lake/", "options": options}}[scheme]
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    process = begin("stage", spec(tmp_path, sources=[source]), **keys)
    wait_until(trickle.is_answering.is_set, process)
    assert ends_in_time(process, sent).count("interrupted") == (sent is signal.SIGINT)
    assert Cache.open(tmp_path / "cache").leases.live() == []


def test_signal_ends_a_verification(begin: Begin, tmp_path: Path) -> None:
    stage_rows(tmp_path, size=20_000_000)
    process = begin("verify", "--rate", "1MB/s")
    blobs = str(tmp_path / "cache")
    wait_until(lambda: any(blobs in name and "blobs" in name for name in open_files(process.pid)), process)
    ends_in_time(process, signal.SIGTERM)


def open_files(pid: int) -> list[str]:
    paths = []
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                paths.append(str(link.readlink()))
    return paths


@pytest.mark.parametrize("sent", CODES)
def test_signal_ends_a_check_with_its_child(sent: signal.Signals, begin: Begin, tmp_path: Path) -> None:
    stage_rows(tmp_path)
    process = begin("validate", "things")
    wait_until(lambda: children(process.pid), process)
    (child,) = children(process.pid)
    ends_in_time(process, sent)
    assert eventually(lambda: not is_running(child), LIMIT)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_signal_ends_a_wait_for_prefect(begin: Begin, trickle: Trickle) -> None:
    process = begin("limits", "--per-node", "2", "--node", "n", PREFECT_API_URL=f"http://{trickle.address}/api")
    wait_until(trickle.is_answering.is_set, process)
    ends_in_time(process, signal.SIGTERM)


def test_signal_ends_a_wait_for_a_lock(begin: Begin, tmp_path: Path) -> None:
    stage_rows(tmp_path)
    trash = Cache.open(tmp_path / "cache").layout.trash
    with locked(trash):
        process = begin("gc")
        wait_until(lambda: str(trash) in open_files(process.pid), process)
        ends_in_time(process, signal.SIGINT)
