"""Progress that other processes see: a real stager reads a slow server, and a second process looks on."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.cells import cell_len

from tests.support.webservers import WebServer, rclone

RATE = 128 << 10
SIZE = 5 * RATE
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with rclone("http", tmp_path_factory.mktemp("http"), "--read-only") as running:
        (running.root / "large.bin").write_bytes(os.urandom(SIZE))
        (running.root / "small.txt").write_text("small")
        yield running


@dataclass
class Stager:
    """A `stagegate stage` that takes about five seconds."""

    folder: Path
    url: str
    include: str = "*"
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def spec(self) -> Path:
        path = self.folder / "things.yaml"
        source = {"url": self.url, "include": [self.include]}
        path.write_text(yaml.safe_dump({"stagegate": 1, "dataset": "things", "sources": [source]}))
        return path

    @property
    def settings(self) -> dict[str, str]:
        return {
            **os.environ,
            "STAGEGATE_CACHE": str(self.folder / "cache"),
            "STAGEGATE_CATALOG": str(self.folder / "catalog"),
            "STAGEGATE_BANDWIDTH": str(RATE),
            "STAGEGATE_PART_SIZE": "64KiB",
            "STAGEGATE_MEMORY": "1MiB",
            "COLUMNS": "60",
            "LINES": "20",
            "TERM": "xterm-256color",
        }

    def start(self, *words: str, **streams: Any) -> subprocess.Popen[str]:
        """Start a command; without words, the staging."""
        command = [sys.executable, "-m", "prefect_stagegate", *(words or ("stage", str(self.spec)))]
        streams = streams or {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.started.append(subprocess.Popen(command, env=self.settings, text=True, **streams))
        return self.started[-1]


@pytest.fixture
def stager(tmp_path: Path, server: WebServer) -> Iterator[Stager]:
    running = Stager(tmp_path, server.url)
    yield running
    for process in running.started:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def seen(run_stagegate: Run, is_enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The job that another process sees, once it is far enough."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        looked = run_stagegate("progress", "--json")
        # The cache may not be there yet.
        if looked.returncode == 0 and (jobs := json.loads(looked.stdout)) and is_enough(jobs[0]):
            job: dict[str, Any] = jobs[0]
            return job
        time.sleep(0.1)
    raise AssertionError("no such progress within a minute")


def moves(job: dict[str, Any]) -> bool:
    return bool(job["progress"] and job["progress"]["bytes_moved"])


def test_second_process_reads_progress(stager: Stager, run_stagegate: Run) -> None:
    process = stager.start()
    job = seen(run_stagegate, moves)
    progress = job["progress"]
    assert (job["dataset"], job["what"], job["pid"]) == ("things", "stage", process.pid)
    assert (progress["phase"], progress["objects"], progress["object"]) == ("fetching", 2, "large.bin")
    assert progress["bytes"] == SIZE + 5
    assert 0 < progress["bytes_moved"] <= SIZE + 5
    assert progress["rate"] > 0
    assert 0 <= progress["seconds_left"] < 60
    assert progress["bottleneck"] in {"network", "hashing", "disk", "waiting"}
    assert run_stagegate("progress", "others").stdout == "No job writes into this node's cache.\n"
    watched = run_stagegate("progress", "--watch", "--json")
    looks = [json.loads(line)[0]["progress"]["bytes_moved"] for line in watched.stdout.splitlines()]
    assert looks == sorted(looks)
    assert process.wait(60) == 0
    # The progress went with the lease.
    assert run_stagegate("progress").stdout == "No job writes into this node's cache.\n"
    assert not list((stager.folder / "cache/leases").iterdir())


def test_progress_is_lines_for_people(stager: Stager, run_stagegate: Run) -> None:
    process = stager.start()
    seen(run_stagegate, moves)
    title, counts, speed = run_stagegate("progress").stdout.splitlines()
    assert title.startswith(f"stage things (pid {process.pid}, ")
    assert counts.startswith("  fetching: ")
    assert counts.endswith(" left")
    assert "/s, bottleneck: " in speed
    assert speed.endswith(", large.bin")


def test_killed_stager_has_no_progress(stager: Stager, run_stagegate: Run) -> None:
    process = stager.start()
    seen(run_stagegate, moves)
    process.kill()
    process.wait()
    assert json.loads(run_stagegate("progress", "--json").stdout) == []
    run_stagegate("gc")
    assert not list((stager.folder / "cache/leases").iterdir())


def test_stopped_stager_is_named(stager: Stager, run_stagegate: Run) -> None:
    process = stager.start()
    seen(run_stagegate, moves)
    process.send_signal(signal.SIGSTOP)
    assert ", stopped" in run_stagegate("progress").stdout
    assert seen(run_stagegate, lambda job: job["quiet_seconds"] > 1)["is_stopped"]


def test_interrupted_stager_ends_at_once(stager: Stager, run_stagegate: Run) -> None:
    process = stager.start()
    seen(run_stagegate, moves)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert time.monotonic() - begun < 10  # two seconds, and what a busy machine adds
    assert json.loads(run_stagegate("progress", "--json").stdout) == []


def at_a_terminal(stager: Stager, *words: str) -> str:
    """All that a command writes to a terminal of 60 columns."""
    controller, terminal = pty.openpty()
    process = stager.start(*words, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    written = b""
    with os.fdopen(controller, "rb", buffering=0) as output, suppress(OSError):  # EIO: the command closed its end
        while select.select([output], [], [], 60)[0]:
            written += os.read(output.fileno(), 65_536)
    assert process.wait(60) == 0
    return written.decode()


def lines(written: str) -> list[str]:
    """What was drawn, line by line, each time that it was drawn."""
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written))


def test_bar_fits_sixty_columns_and_has_an_end(stager: Stager) -> None:
    written = at_a_terminal(stager)
    assert " left" in written
    assert "large.bin" in written
    assert "\x1b[31m" not in written  # red
    assert max(map(cell_len, lines(written)[:-6])) <= 60  # the last lines are the result


def test_watching_at_a_terminal_ends_with_the_job(stager: Stager, run_stagegate: Run) -> None:
    process = stager.start()
    seen(run_stagegate, moves)
    written = at_a_terminal(stager, "progress", "--watch")
    assert f"stage things (pid {process.pid}, " in written
    assert " left" in written
    assert max(map(cell_len, lines(written))) <= 60


@pytest.mark.parametrize("flag", ["--no-progress", "--quiet"])
def test_flags_show_less(stager: Stager, flag: str) -> None:
    stager.include = "small.txt"
    assert "\x1b[" in at_a_terminal(stager)
    written = at_a_terminal(stager, "stage", str(stager.spec), flag)
    assert "\x1b[" not in written
    assert ("things@sha256:" in written) is (flag == "--no-progress")


def test_quiet_commands_tell_by_their_code(stager: Stager, run_stagegate: Run) -> None:
    data = stager.folder / "data"
    data.mkdir()
    (data / "a.csv").write_text("a\n1\n")
    spec = {"stagegate": 1, "dataset": "few", "sources": [{"url": str(data)}]}
    spec |= {"contract": {"files": [{"match": "*.csv", "probes": ["nonempty"]}]}}
    spec |= {"gates": {"pilot": {"require": ["owner"]}}}
    path = stager.folder / "few.yaml"
    path.write_text(yaml.safe_dump(spec))
    for words, code in (
        (("stage", path), 0),
        (("validate", "few"), 3),
        (("check", "few", "--gate", "pilot"), 1),
        (("verify",), 0),
        (("contract", "check", path), 3),
    ):
        done = run_stagegate(*words, "--quiet")
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert json.loads(run_stagegate("verify", "--quiet", "--json").stdout)["damaged"] == []
    assert run_stagegate("stage", stager.folder / "none.yaml", "--quiet").stderr
