"""Stagings that several processes read for: what they make, and what is left when some of them die."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from prefect_stagegate.errors import CacheError, Cancelled, StagegateError, TransferFailed
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.upkeep.verify import verify
from prefect_stagegate.model import Version
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.transport.transfer import processes, transfer_engine
from prefect_stagegate.transport.transfer.progress import Meter
from tests.support.http_servers import FileHandler, http_server
from tests.support.proxy import FaultProxy
from tests.support.waiting import eventually

FILES = 150
LIMIT = 10.0
"""Seconds until processes are gone: two, and what a machine that is busy with other tests adds."""
MANY = 20
"""Waiting objects from which workers are started here."""


class SlowHandler(FileHandler):
    """Sends files after a while, so that a staging lasts."""

    def __init__(self, node: Node, *args: Any, **more: Any) -> None:
        self.node = node
        super().__init__(*args, **more)

    def do_GET(self) -> None:
        node = self.node
        if self.path.endswith(".bin"):
            node.requests.append(time.monotonic())
            if node.is_busy(self.path):
                self.respond(503, headers={"Retry-After": "4"})
                return
            with node.open():
                time.sleep(node.seconds)
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
        self.requests: list[float] = []
        """When the server got each of them."""
        self.is_busy: Callable[[str], bool] = lambda _: False
        self.seconds = 0.15
        """For each object."""
        self.most_open = self._open = 0
        """Most requests at a time."""
        self._lock = threading.Lock()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Count a request that the server works on."""
        with self._lock:
            self._open += 1
            self.most_open = max(self.most_open, self._open)
        yield
        with self._lock:
            self._open -= 1

    def spec(self, **more: Any) -> dict[str, Any]:
        return {"stagegate": 1, "dataset": "things", "sources": [{"url": self.url}], **more}

    def stage(self, cancel: threading.Event | None = None, cache: str = "cache", **more: Any) -> Version:
        workspace = open_workspace(self.folder / cache, self.folder / "catalog")
        return stage(workspace, self.spec(**more), progress=self.meter, cancel=cancel)

    def command(self, **constants: float) -> subprocess.Popen[str]:
        """The `stagegate stage` command, after constants of the workers were set."""
        (self.folder / "things.yaml").write_text(yaml.safe_dump(self.spec()))
        lines = [f"transfer_engine.SHARED_OBJECTS = {MANY}"]
        lines += [f"processes.{name} = {value}" for name, value in constants.items()]
        program = "from prefect_stagegate.transport.transfer import processes, transfer_engine\n"
        program += "\n".join([*lines, "from prefect_stagegate.cli import main", "main()"])
        words = ["stage", "things.yaml", "--cache", "cache", "--catalog", "catalog"]
        return subprocess.Popen(
            [sys.executable, "-c", program, *words],
            cwd=self.folder,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def begun(self, parent: int) -> list[int]:
        """The workers of a process, as soon as one has claimed an object; until then the server is slow."""
        self.seconds = 1.0
        found = eventually(lambda: begun(parent))
        self.seconds = 0.15
        assert found
        return list(found)

    def blobs(self) -> list[Path]:
        return list((self.folder / "cache/blobs").glob("*/*"))

    def left(self) -> list[str]:
        """What lies in the folder of objects on their way in."""
        names = [path.name for path in (self.folder / "cache/ingest").glob("*")]
        # Marks stay until the next sync where a staging ended without one.
        return [name for name in names if not name.startswith("unsynced-")]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(transfer_engine, "SHARED_OBJECTS", MANY)
    monkeypatch.setenv("STAGEGATE_PROCESSES", "3")
    monkeypatch.setenv("STAGEGATE_OBJECTS_IN_FLIGHT", "12")
    node = Node(tmp_path)
    with http_server(partial(SlowHandler, node, directory=str(node.files))) as url:
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


def begun(parent: int) -> list[int]:
    """Those that have claimed an object."""
    return [worker for worker in workers(parent) if any("/ingest/" in path for path in opened(worker))]


def opened(process: int) -> list[str]:
    """The files that a process has open."""
    try:
        return [str(entry.readlink()) for entry in Path(f"/proc/{process}/fd").iterdir()]
    except OSError:  # it has ended, or closed one meanwhile
        return []


def are_gone(processes: Iterable[int]) -> bool:
    """Whether processes end soon. One whose end nobody asked for has no command line."""
    lines = [Path(f"/proc/{process}/cmdline") for process in processes]
    return bool(eventually(lambda: not any(line.exists() and line.read_bytes() for line in lines), LIMIT))


def meanwhile(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


def seconds_to_stop(node: Node, first: Callable[[], object] = lambda: None) -> float:
    """Stop a staging that has begun and on which `first` has acted; returns the seconds until it ended."""
    cancel = threading.Event()
    stopped: list[float] = []

    def stop() -> None:
        first()
        eventually(lambda: node.meter.snapshot().objects_done > MANY)
        stopped.append(time.monotonic())
        cancel.set()

    thread = meanwhile(stop)
    with pytest.raises(Cancelled):
        node.stage(cancel)
    thread.join()
    return time.monotonic() - stopped[0]


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
    with FaultProxy(seaweedfs.endpoint_url, delay=0.5) as proxy:
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
    monkeypatch.setattr(sys, "executable", "/no/such/python3")
    assert node.stage().files == FILES
    assert node.meter.stats.processes == 1
    assert "no further worker process can be started: No such file or directory" in caplog.text


@pytest.mark.parametrize("program", [None, "", "/bin/true", "packed python"])
def test_program_that_is_no_interpreter_is_not_started(
    program: str | None, node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if program == "packed python":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    else:
        monkeypatch.setattr(sys, "executable", program)
    assert node.stage().files == FILES
    assert node.meter.stats.processes == 1
    assert "no further worker process can be started: this process runs in" in caplog.text


def test_worker_that_cannot_import_leaves_its_share_to_others(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(processes, "PROGRAM", "import no_such_module")
    assert node.stage().files == FILES
    assert node.meter.stats.processes == 1
    assert "can be started: ended with status 1: ModuleNotFoundError: No module named 'no_such_module'" in caplog.text
    assert node.most_open > 4  # of 12, which three processes were to share


def test_retry_after_holds_in_all_processes(node: Node) -> None:
    """Also where it is told to a worker that is about to start."""
    refused: list[float] = []

    def is_busy(_: str) -> bool:
        if not refused:
            refused.append(time.monotonic())
            return True
        return False

    def refuse_one() -> None:
        eventually(lambda: workers(os.getpid()))
        node.is_busy = is_busy

    thread = meanwhile(refuse_one)
    begun = time.process_time()
    assert node.stage().files == FILES
    assert time.process_time() - begun < 2, "whoever waits asks again and again"
    thread.join()
    assert node.meter.stats.processes > 1
    # Others hear of it a moment later.
    assert not [at for at in node.requests if 1.5 < at - refused[0] < 3.9]
    assert [at for at in node.requests if at - refused[0] > 3.9]


# ── processes that die ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
def test_objects_of_a_lost_worker_are_read_by_others(
    sign: signal.Signals, node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if sign == signal.SIGSTOP:
        monkeypatch.setattr(processes, "SILENT_SECONDS", 10.0)

    def lose() -> None:
        os.kill(node.begun(os.getpid())[0], sign)

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
        node.seconds = 3.0
        while not ended.wait(0.01):
            for worker in begun(os.getpid()):
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
    assert seconds_to_stop(node) < 2.5
    assert not workers(os.getpid())
    assert node.left() == []
    before = node.meter.snapshot().objects_done
    version = node.stage()
    assert version.bytes_fetched < version.bytes  # what came in before stayed
    assert before


def test_stop_does_not_wait_for_a_worker_that_takes_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def small_pipe() -> tuple[Connection, Connection]:
        ours, theirs = Pipe()
        with socket.socket(fileno=os.dup(ours.fileno())) as end:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        return ours, theirs

    def pause_workers() -> None:
        for worker in eventually(lambda: workers(os.getpid())):
            os.kill(worker, signal.SIGSTOP)

    monkeypatch.setattr(processes, "Pipe", small_pipe)
    assert seconds_to_stop(node, pause_workers) < 2.5


def test_worker_that_starts_during_the_stop_ends(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel, start = threading.Event(), processes.Processes.start

    def start_late(self: processes.Processes) -> None:
        cancel.set()
        time.sleep(2)
        start(self)

    monkeypatch.setattr(processes.Processes, "start", start_late)
    with pytest.raises(Cancelled):
        node.stage(cancel)
    time.sleep(1)
    assert not workers(os.getpid())


def test_objects_given_to_a_worker_that_has_died_are_read(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    hand_to, killed = transfer_engine.TransferEngine.hand_to, threading.Event()

    def hand_late(self: transfer_engine.TransferEngine, give: Any, *share: Any) -> None:
        if not killed.is_set():
            killed.set()
            self._loop.call(lambda: time.sleep(1))
            give.__self__.process.kill()
        hand_to(self, give, *share)

    monkeypatch.setattr(transfer_engine.TransferEngine, "hand_to", hand_late)
    assert node.stage().files == FILES
    assert killed.is_set()


def test_objects_of_a_worker_whose_connection_breaks_are_read(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    next_report, broken = processes.TransferWorker.next_report, threading.Event()

    def break_off(self: processes.TransferWorker) -> Any:
        report = next_report(self)
        if report and report.stored and not broken.is_set():
            broken.set()
            with socket.socket(fileno=os.dup(self.connection.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)
        return report

    monkeypatch.setattr(processes.TransferWorker, "next_report", break_off)
    assert node.stage().files == FILES
    assert "others read its" in caplog.text
    assert node.left() == []


def test_signals_for_all_processes_of_a_job_kill_no_worker(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    def signal_all() -> None:
        for worker in node.begun(os.getpid()):
            for sign in (signal.SIGTERM, signal.SIGINT):
                os.kill(worker, sign)

    thread = meanwhile(signal_all)
    assert node.stage().files == FILES
    thread.join()
    assert "worker process" not in caplog.text


def test_pause_of_all_processes_is_no_silence(node: Node) -> None:
    with node.command(SILENT_SECONDS=3) as command:
        paused = [*node.begun(command.pid), command.pid]
        for process in paused:
            os.kill(process, signal.SIGSTOP)
        time.sleep(5)
        for process in reversed(paused):
            os.kill(process, signal.SIGCONT)
            time.sleep(0.4)
        _, told = command.communicate()
    assert command.returncode == 0
    assert "a worker process" not in told


def test_what_a_failed_sync_may_have_lost_goes_with_workers_too(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[str] = set()

    def fail(_: object) -> None:
        if node.meter.stats.processes == 1:
            synced.update(path.name for path in node.blobs())
            return
        time.sleep(0.5)  # meanwhile, workers store more
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("prefect_stagegate.durable.OpenVolume.sync", fail)
    monkeypatch.setattr("prefect_stagegate.transport.transfer.UNSYNCED", MANY << 12)
    with pytest.raises(CacheError, match="input/output error"):
        node.stage()
    assert {path.name for path in node.blobs()} <= synced


@pytest.mark.parametrize("worker", ["running", "stopped"])
def test_killed_staging_leaves_no_process(worker: str, node: Node) -> None:
    with node.command() as command:
        found = node.begun(command.pid)
        eventually(lambda: len(node.blobs()) > MANY)
        if worker == "stopped":
            os.kill(found[0], signal.SIGSTOP)
        command.kill()
    assert are_gone(found)
    version = node.stage()
    assert version.files == FILES
    assert version.bytes_fetched < version.bytes


ROUNDS = max(4, int(os.environ.get("CRASH_POINTS", "0")) // 100)
"""`make faults` takes more."""


def test_terminated_staging_ends_all_processes_at_any_moment(node: Node) -> None:
    random = Random(os.environ.get("SEED", "4"))
    for _ in range(ROUNDS):
        with node.command() as command:
            eventually(node.left, 20)
            time.sleep(random.uniform(0, 1.5))
            found = [command.pid, *workers(command.pid)]
            command.terminate()
            assert are_gone(found)
        for blob in node.blobs()[::2]:
            blob.unlink()
    assert node.stage().files == FILES
    workspace = open_workspace(node.folder / "cache", node.folder / "catalog")
    assert not [*verify(workspace).damaged, *workspace.cache.leases.live()]
