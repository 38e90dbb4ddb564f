"""The progress of jobs: what is recorded beside a lease, and what is made of a file that anybody may have written."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.gc import collect
from prefect_stagegate.cache.job_progress import LONGEST_TEXT, JobProgress, Phase, read_progress, write_progress
from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.cli import main
from prefect_stagegate.cli import progress_display as display
from prefect_stagegate.cli.progress_display import shown_progress, transfer_rows
from prefect_stagegate.jobs.running_jobs import running_jobs
from prefect_stagegate.model import Pin, Receipt, SourceObject
from prefect_stagegate.transport.transfer.progress import Meter, TransferStats
from tests.support.waiting import eventually

HALF = JobProgress(Phase.FETCHING, 4, 2, 1000, 400, 100, 50.0, 10.0, "a.csv", "", "network", "2026-03-01T03:00:00Z")


def receipt(size: int, fetched: int) -> Receipt:
    return Receipt(
        "a", SourceObject("a", size, Pin("etag", "1", "strong")), 0, "blake3:" + "0" * 64, "computed", fetched
    )


def test_progress_is_read_as_written(cache: Cache) -> None:
    with cache.leases.hold(LeaseKind.WRITER, "things", purpose="stage") as lease:
        assert [job.progress for job in running_jobs(cache)] == [None]
        write_progress(cache.layout, lease.id, HALF)
        (job,) = running_jobs(cache)
    assert (job.dataset, job.what, job.pid, job.progress) == ("things", "stage", os.getpid(), HALF)
    assert job.is_quiet  # since the date above
    assert HALF.bytes_done == 500
    assert running_jobs(cache) == []


def test_readers_and_pins_are_no_jobs(cache: Cache) -> None:
    cache.leases.pin("things", "sha256:" + "0" * 64)
    with cache.leases.hold(LeaseKind.READER, "things", "sha256:" + "0" * 64):
        assert running_jobs(cache) == []


def test_record_is_small_whatever_the_path(cache: Cache) -> None:
    long = replace(HALF, object="\udcff\u202e" * 5000 + "end", wait="w" * 5000)
    write_progress(cache.layout, "0" * 32, long)
    (path,) = cache.layout.leases.iterdir()
    assert path.stat().st_size < 16_384
    read = read_progress(cache.layout, "0" * 32)
    assert read
    assert len(read.object) == LONGEST_TEXT
    assert read.object.endswith("end")


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "winning"},
        {"bytes": -1},
        {"bytes": True},
        {"bytes": 1 << 70},
        {"objects": "4"},
        {"rate": float("nan")},
        {"seconds_left": float("inf")},
        {"seconds_left": []},
        {"object": "x" * 1000},
        {"object": None},
    ],
    ids=str,
)
def test_senseless_values_are_no_progress(cache: Cache, change: dict[str, Any]) -> None:
    (cache.layout.leases / f"{'0' * 32}.progress").write_text(json.dumps(asdict(HALF) | change))
    assert read_progress(cache.layout, "0" * 32) is None


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 10_000, '{"phase": "fetching"}', "9" * 9_000], ids=len)
def test_senseless_files_are_no_progress(cache: Cache, text: str) -> None:
    (cache.layout.leases / f"{'0' * 32}.progress").write_text(text)
    assert read_progress(cache.layout, "0" * 32) is None


def test_a_reader_waits_for_nothing(cache: Cache, tmp_path: Path) -> None:
    path = cache.layout.leases / f"{'0' * 32}.progress"
    os.mkfifo(path)
    assert read_progress(cache.layout, "0" * 32) is None
    path.unlink()
    (tmp_path / "secret").write_text(json.dumps(asdict(HALF)))
    path.symlink_to(tmp_path / "secret")
    assert read_progress(cache.layout, "0" * 32) is None


def test_hostile_records_are_printed_escaped(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    with cache.leases.hold(LeaseKind.WRITER, "things\x1b[2J", purpose="stage\nthings") as lease:
        write_progress(cache.layout, lease.id, replace(HALF, object="a\n\x1b[31mb\u202e", bottleneck="\x1b]0;x\x07"))
        main(["progress", "--cache", str(cache.root)])
    output = capsys.readouterr().out
    assert len(output.splitlines()) == 3
    assert not {"\x1b", "\x07", "\u202e"} & set(output)


def test_collection_removes_progress_of_the_dead(cache: Cache) -> None:
    lease = cache.layout.leases / ("0" * 32)
    for path in (lease, lease.with_suffix(".progress"), lease.with_suffix(".progress-new")):
        path.touch()
    collect(cache.layout)
    assert not list(cache.layout.leases.iterdir())


def test_meter_says_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    at = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: at)
    meter = Meter.of(Meter())
    meter.listed(3, 1000)
    meter.started("b.csv")
    meter.done(receipt(200, 0))
    at += 2
    meter.moved(100)
    assert meter.snapshot().seconds_left is None  # more may be listed
    meter.enter(Phase.FETCHING)
    stats = TransferStats()
    stats.seconds["disk"] = 3.0
    meter.stats = stats
    seen = meter.snapshot()
    assert (seen.phase, seen.objects, seen.objects_done, seen.bytes_done) == ("fetching", 3, 1, 300)
    assert (seen.rate, seen.seconds_left, seen.object) == (50.0, 14.0, "b.csv")
    assert meter.snapshot().bottleneck == "disk"
    # What stands still is seen as such soon: the speed is that of the last seconds.
    for _ in range(40):
        at += 1
        still = meter.snapshot()
    assert (still.rate, still.seconds_left, still.bottleneck) == (0.0, None, "")


@pytest.mark.parametrize("width", [60, 80])
def test_rows_fit_the_terminal_and_are_not_red(width: int) -> None:
    huge = JobProgress(Phase.FETCHING, 12_345, 7, 3_456_789_012_345, 234_567_890_123, 0, 12_500_000.0, 257_000.0)
    for each in (huge, replace(huge, object="flights\x1b[31m/" + "x" * 200), replace(huge, phase=Phase.PUBLISHING)):
        output = io.StringIO()
        console = Console(width=width, file=output, force_terminal=True, color_system="truecolor")
        console.print(transfer_rows("stage nycflights", each))
        drawn = output.getvalue()
        assert "249;38;114" not in drawn  # Rich's own colour of bars
        assert "\x1b[31m" not in drawn
        assert all(cell_len(Text.from_ansi(line).plain) <= width for line in drawn.splitlines())
        assert len(drawn.splitlines()) == 2
        for part in ("6%", "234.6 GB of 3.5 TB", "12.5 MB/s", "3 d left", "stage nycflights: 7 of 12,345 objects"):
            assert part in drawn


def test_elsewhere_progress_is_plain_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(display, "LINE_SECONDS", 0.01)
    with shown_progress("stage things") as progress:
        assert progress
        progress.listed(2, 2_000_000)
        progress.moved(500_000)
        progress.waiting("waits for pid 7 (\x1b[31mmallory)")
        last = eventually(lambda: [line for line in capsys.readouterr().err.splitlines() if "waits" in line])[-1]
    assert last.startswith("stage things: 0 of 2 objects, 500.0 kB fetched, 0 B reused of 2.0 MB, ")
    assert "waits for pid 7 (\\x1b[31mmallory)" in last


def test_progress_that_nobody_reads_ends_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unread(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Unread())
    monkeypatch.setattr(display, "LINE_SECONDS", 0.01)
    with shown_progress("stage things") as progress:
        assert progress
        time.sleep(0.1)
        progress.moved(500_000)


def test_no_progress_when_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with shown_progress("stage things", "none") as progress:
        assert progress is None


def test_a_progress_without_a_lease_is_collected(cache: Cache) -> None:
    write_progress(cache.layout, "0" * 32, HALF)
    with cache.leases.hold(LeaseKind.WRITER, "things") as lease:
        write_progress(cache.layout, lease.id, HALF)
        collect(cache.layout)
        assert {path.stem for path in cache.layout.leases.glob("*.progress")} == {lease.id}
