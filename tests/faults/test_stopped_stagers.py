"""A stager that stands still, stopped by SIGSTOP with a claim on an object, holds nobody up for long."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from blake3 import blake3

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.gc import collect
from prefect_stagegate.model import Receipt
from prefect_stagegate.transport.transfer import Limits
from prefect_stagegate.transport.transfer.progress import Progress
from tests.support.scripted import ScriptedSource, fetch_all

PART = 1 << 20
SIZES = {"small": 1000, "large": 4 * PART + 17}
LIMITS = Limits(in_flight=2, part=PART, memory=4 * PART, idle=0.5)

STAGER = f"""
import os, pathlib, signal, sys
from prefect_stagegate.cache import Cache
from tests.support.scripted import ScriptedSource, fetch_all
from prefect_stagegate.transport.transfer import Limits

reads = []
def stop(key, start, end):
    reads.append(start)
    if len(reads) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGSTOP)

source = ScriptedSource({{"a": bytes(range(251)) * (int(sys.argv[2]) // 251 + 1)}})
source.objects["a"] = source.objects["a"][:int(sys.argv[2])]
source.on_read = stop
limits = Limits(in_flight=2, part={PART}, memory={4 * PART})
for receipt in fetch_all(source, Cache.open(pathlib.Path(sys.argv[1])), limits=limits):
    print(receipt.digest, flush=True)
"""


def content(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@contextmanager
def stopped_stager(cache: Path, size: int, at_read: int) -> Iterator[subprocess.Popen[str]]:
    """A process that stopped itself while it brings the object in."""
    with stopped([sys.executable, "-c", STAGER, str(cache), str(size), str(at_read)]) as process:
        yield process


@contextmanager
def stopped(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process of a command that stops itself."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


class Told(Progress):
    """Keeps what is told of waiting."""

    def __init__(self) -> None:
        self.waits: list[str] = []

    def waiting(self, reason: str) -> None:
        """Keep it."""
        self.waits.append(reason)


def fetch(cache: Cache, size: int, progress: Progress | None = None) -> Receipt:
    source = ScriptedSource({"a": content(size)})
    (receipt,) = fetch_all(source, cache, limits=LIMITS, progress=progress)
    return receipt


@pytest.mark.parametrize(("size", "at_read"), [("small", 1), ("large", 1), ("large", 3)])
def test_a_stopped_stager_blocks_nobody(tmp_path: Path, size: str, at_read: int) -> None:
    cache, count = Cache.open(tmp_path / "cache"), SIZES[size]
    expected = f"blake3:{blake3(content(count)).hexdigest()}"
    with stopped_stager(cache.layout.root, count, at_read) as stager:
        receipt = fetch(cache, count)
        assert receipt.digest == expected
        assert receipt.fetched == count
        os.kill(stager.pid, signal.SIGCONT)
        assert stager.stdout
        assert stager.stdout.read().split() == [expected]
        assert stager.wait(timeout=30) == 0
    assert list(cache.layout.ingest.iterdir()) == []
    assert cache.layout.blob(expected).read_bytes() == content(count)
    assert fetch(cache, count).fetched == 0


def test_who_waits_says_for_whom_and_since_when(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache, progress = Cache.open(tmp_path / "cache"), Told()
    with stopped_stager(cache.layout.root, SIZES["small"], 1) as stager, caplog.at_level(logging.INFO):
        fetch(cache, SIZES["small"], progress)
    assert f"pid {stager.pid}" in progress.waits[0]
    assert "stopped" in progress.waits[0]
    assert "since 20" in progress.waits[0]
    assert f"pid {stager.pid}" in caplog.text
    assert "fetches it" in caplog.text


def test_what_a_stopped_stager_leaves_is_collected(tmp_path: Path) -> None:
    cache = Cache.open(tmp_path / "cache")
    with stopped_stager(cache.layout.root, SIZES["large"], 3):
        assert fetch(cache, SIZES["large"]).fetched == SIZES["large"]
    left = [path for path in cache.layout.ingest.iterdir() if not path.name.endswith(".parts")]
    assert len(left) == 1
    os.utime(left[0], (1, 1))
    collect(cache.layout)
    assert not left[0].exists()


def test_a_stager_that_goes_on_is_waited_for(tmp_path: Path) -> None:
    cache, count = Cache.open(tmp_path / "cache"), SIZES["large"]
    with stopped_stager(cache.layout.root, count, 2) as stager:

        class Continued(Progress):
            def waiting(self, _told: str) -> None:
                """Let it go on as soon as it is waited for."""
                os.kill(stager.pid, signal.SIGCONT)

        source = ScriptedSource({"a": content(count)})
        limits = Limits(in_flight=2, part=PART, memory=4 * PART, idle=60)
        (receipt,) = fetch_all(source, cache, limits=limits, progress=Continued())
        assert receipt.fetched == 0
        assert source.reads == []


FILES_STAGER = """
import os, pathlib, signal, sys
from prefect_stagegate.cache import Cache
from prefect_stagegate.sources.local.local_source import FileSource
from tests.support.scripted import fetch_all

class Stopping(FileSource):
    def read_into(self, listed, start, buffer):
        os.kill(os.getpid(), signal.SIGSTOP)
        super().read_into(listed, start, buffer)

list(fetch_all(Stopping(sys.argv[1]), Cache.open(pathlib.Path(sys.argv[2]))))
"""


def test_the_command_says_whom_it_waits_for_and_goes_on(
    tmp_path: Path, run_stagegate: Callable[..., subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, nas = tmp_path / "cache", tmp_path / "nas"
    nas.mkdir()
    (nas / "a.csv").write_text("1,2\n")
    os.utime(nas / "a.csv", (1, 1))
    spec = tmp_path / "spec.yaml"
    spec.write_text("stagegate: 1\ndataset: things\nsources: [{url: nas/}]\n")
    monkeypatch.setenv("STAGEGATE_IDLE_TIMEOUT", "1")
    with stopped([sys.executable, "-c", FILES_STAGER, str(nas), str(cache)]) as stager:
        staged = run_stagegate("stage", str(spec), "--cache", str(cache), "--catalog", str(tmp_path / "catalog"))
        assert staged.returncode == 0, staged.stderr
        assert "fetched 4 B" in staged.stdout
        assert f"for pid {stager.pid} (" in staged.stderr
        assert "stopped) has written nothing of a.csv" in staged.stderr
        os.kill(stager.pid, signal.SIGCONT)
        assert stager.wait(timeout=30) == 0
    verified = run_stagegate("verify", "--cache", str(cache), "--catalog", str(tmp_path / "catalog"))
    assert "nothing is damaged" in verified.stdout
