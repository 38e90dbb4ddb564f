"""Probing in confined processes: what crashes, hangs or swallows memory there fails its file alone."""

from __future__ import annotations

import os
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from prefect_stagegate.errors import Cancelled, ValidationError
from prefect_stagegate.model import Entry, Outcome
from prefect_stagegate.spec import ContractSpec
from prefect_stagegate.validations.files import probe_pool
from prefect_stagegate.validations.files.facts import DECODERS
from prefect_stagegate.validations.files.file_probes import ProbedFiles, probe_files
from prefect_stagegate.validations.worker import landlock

WORKER = """
import os, signal, socket, sys, time
from prefect_stagegate.validations.files import probe_worker
from prefect_stagegate.doors import Probe
from prefect_stagegate.validations.files.facts import DECODERS
from prefect_stagegate.validations.files.facts import Facts, UnreadableFile

def text(path):
    exec(path.read_text())
    return Facts()

DECODERS["text"] = Probe("__main__:text")
probe_worker.main()
"""
"""A worker whose probe `text` has a hole: it runs what the file holds."""


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ProbedFiles]:
    """Probe files with these contents in workers with a hole, two at a time."""
    monkeypatch.setattr(probe_pool, "COMMAND", (sys.executable, "-c", WORKER))
    view = tmp_path / "view"
    view.mkdir()

    def run(*contents: str, cancel: threading.Event | None = None) -> ProbedFiles:
        for number, content in enumerate(contents):
            (view / f"{number:03}.txt").write_text(content)
        entries = [Entry(path.name, path.stat().st_size, "blake3:00") for path in sorted(view.iterdir())]
        contract = ContractSpec.model_validate({"files": [{"match": "*", "probes": ["text"]}]})
        return probe_files(view, entries, contract, cancel=cancel)

    return run


def test_every_decoder_runs_confined(tmp_path: Path) -> None:
    """Each with its library, which is loaded after the process was confined."""
    Image.effect_noise((16, 16), 60).save(tmp_path / "a.image", "AVIF")
    soundfile.write(tmp_path / "a.audio", np.zeros((100, 1)), 8000, format="FLAC")
    np.savez_compressed(tmp_path / "a.npz", a=np.arange(10))
    (tmp_path / "a.npz").rename(tmp_path / "a.numpy")
    pd.DataFrame({"x": range(10)}).to_parquet(tmp_path / "a.parquet-pages")
    (tmp_path / "a.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    (tmp_path / "a.jsonl").write_text("{}")
    (tmp_path / "a.text").write_text("a")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "a.text", "0.txt")
    entries = [Entry(path.name, path.stat().st_size, "blake3:00") for path in sorted(tmp_path.iterdir())]
    items = [{"match": f"*.{name}", "probes": [name]} for name in DECODERS]
    files = probe_files(tmp_path, entries, ContractSpec.model_validate({"files": items}))
    assert files.defects == {}
    assert files.decoded == len(DECODERS)


def test_workers_are_as_many_as_the_control_group_has_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    for quota, expected in ((1.5, 2), (0.2, 1), (100.0, 64), ("unlimited", 64)):
        monkeypatch.setattr(probe_pool, "capture_limits", lambda quota=quota: {"cpus": quota})
        assert probe_pool.cores() == expected


def test_crashed_decoder_fails_its_file_only(probe: Callable[..., ProbedFiles]) -> None:
    crash = "os.kill(os.getpid(), signal.SIGSEGV)"
    files = probe(*["1"] * 150, crash, *["1"] * 150, crash)
    assert sorted(files.defects) == ["150.txt", "301.txt"]
    finding = files.defects["150.txt"]
    assert finding.problem == "its decoder crashed on it (SIGSEGV)"
    assert finding.outcome is Outcome.FAIL
    assert len(files.facts) == 300


def test_endless_crashes_end_the_validation(probe: Callable[..., ProbedFiles], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_pool, "MOST_DEATHS", 3)
    with pytest.raises(ValidationError, match=r"Too many processes that probe files died; .*: SIGABRT"):
        probe(*["os.abort()"] * 9)


def test_killed_decoder_says_nothing_of_the_file(probe: Callable[..., ProbedFiles]) -> None:
    files = probe("os.kill(os.getpid(), signal.SIGKILL)")
    assert files.defects["000.txt"].outcome is Outcome.INCONCLUSIVE
    assert "out-of-memory killer" in files.defects["000.txt"].problem


def test_hanging_decoder_is_ended(probe: Callable[..., ProbedFiles], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_pool, "FILE_SECONDS", 1.0)
    files = probe("time.sleep(600)", "1")
    assert list(files.defects) == ["000.txt"]
    assert files.defects["000.txt"].outcome is Outcome.INCONCLUSIVE
    assert files.defects["000.txt"].problem == "probing it took too long"


def test_hanging_file_costs_its_own_time_only(
    probe: Callable[..., ProbedFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_pool, "FILE_SECONDS", 2.0)
    began = time.monotonic()
    files = probe(*["1"] * 5, "time.sleep(600)", *["1"] * 20)
    assert list(files.defects) == ["005.txt"]
    assert len(files.facts) == 25
    assert time.monotonic() - began < 15  # 32 s where its batch has one deadline


def test_many_hanging_files_end_the_validation(
    probe: Callable[..., ProbedFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_pool, "FILE_SECONDS", 0.5)
    monkeypatch.setattr(probe_pool, "MOST_DEATHS", 20)
    with pytest.raises(ValidationError, match=r"Too many .* died; the last, at 00\d.txt: a file took too long"):
        probe(*["time.sleep(600)"] * 9)


def test_memory_of_a_decoder_is_bounded(probe: Callable[..., ProbedFiles]) -> None:
    files = probe("bytearray(3 << 30)", "1")
    assert list(files.defects) == ["000.txt"]
    assert files.defects["000.txt"].problem == "probing it takes more than 2 GiB of memory"


def test_long_reply_of_a_worker_is_not_read(probe: Callable[..., ProbedFiles]) -> None:
    files = probe(
        "os.write(3, b'x' * 64)\nfor d in range(3, 9):\n  try: os.write(d, b'[' * (1 << 21))\n  except OSError: pass"
    )
    assert len(files.defects) == 1


@pytest.mark.parametrize("reply", ["{}", "[1]", "[]", "[[1]]", "nonsense"])
def test_forged_reply_passes_nothing(probe: Callable[..., ProbedFiles], reply: str) -> None:
    files = probe(f"for d in range(3, 9):\n  try: os.write(d, b'{reply}\\n')\n  except OSError: pass")
    assert list(files.defects) == ["000.txt"]


def test_cancelled_probing_ends_its_workers(probe: Callable[..., ProbedFiles]) -> None:
    cancel = threading.Event()
    threading.Timer(2.0, cancel.set).start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        probe("time.sleep(600)", "time.sleep(600)", cancel=cancel)
    assert time.monotonic() - started < 30


@pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
def test_worker_opens_nothing_but_its_version(probe: Callable[..., ProbedFiles], tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("hush")
    escapes = [
        f"raise UnreadableFile(open({str(tmp_path / 'secret.txt')!r}).read())",
        f"open({str(tmp_path / 'new.txt')!r}, 'w')",
        "os.execv('/bin/sh', ['sh', '-c', 'true'])",
        "socket.create_connection(('127.0.0.1', 1))",
    ]
    files = probe(*escapes)
    problems = [files.defects[f"{number:03}.txt"].problem for number in range(len(escapes))]
    assert all("Permission denied" in problem for problem in problems), problems
    assert not (tmp_path / "new.txt").exists()
    assert files.sandbox.startswith("Landlock")


def test_worker_gets_no_secrets(probe: Callable[..., ProbedFiles], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    files = probe("raise UnreadableFile(str(dict(os.environ)) + '!')")
    assert files.defects["000.txt"].problem.startswith("{")
    assert "AWS" not in files.defects["000.txt"].problem


def test_worker_that_can_not_start_is_no_defect(
    probe: Callable[..., ProbedFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_pool, "COMMAND", (sys.executable, "-c", "import sys; sys.exit('no such library')"))
    with pytest.raises(ValidationError, match="could not start: status 1; its last output: no such library"):
        probe("1")


def test_worker_ends_with_its_parent(tmp_path: Path) -> None:
    (reading, writing), (out_reading, out_writing) = os.pipe(), os.pipe()
    pid = os.posix_spawn(
        sys.executable,
        [*probe_pool.COMMAND, str(tmp_path)],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, reading, 0), (os.POSIX_SPAWN_DUP2, out_writing, 1)],
    )
    assert b"sandbox" in os.read(out_reading, 1000)
    os.close(writing)
    assert os.waitpid(pid, 0) == (pid, 0)
