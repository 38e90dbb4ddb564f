"""Accelerators that pretend to compute, and readers that really read for them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_stagegate.errors import CacheError
from prefect_stagegate.plugins.node.accelerators import SMALLEST, Run, batches, simulate
from prefect_stagegate.plugins.node.machine import Machine
from prefect_stagegate.plugins.node.tiers import Reading, Tiers
from prefect_stagegate.spec import JobSpec

Files = Sequence[tuple[Path, int]]
KIB = 1024


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Twelve files that make 24 batches of 64 KiB."""
    for number in range(12):
        (tmp_path / str(number)).write_bytes(os.urandom(128 * KIB))
    return [(tmp_path / str(number), 128 * KIB) for number in range(12)]


def a_job(**changes: Any) -> JobSpec:
    values = {"batch_size": 4, "sample_size": 16 * KIB, "step_time": 0.001, "readers": 2, **changes}
    return JobSpec.model_validate(values)


def test_needs_are_arithmetic() -> None:
    job = a_job(batch_size=400, sample_size="114kB", step_time=0.5, accelerators=8)
    assert job.batch_bytes == 400 * 114_000
    assert job.needs == 400 * 114_000 / 0.5 * 8


@given(
    st.lists(st.integers(1, 50), max_size=20),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_batches_cover_files_once_in_order_without_the_remainder(sizes: list[int], size: int, largest: int) -> None:
    files = [(Path(str(number)), length) for number, length in enumerate(sizes)]
    dealt = list(batches(files, size, largest))
    assert len(dealt) == sum(sizes) // size
    assert all(sum(piece.length for piece in batch) == size for batch in dealt)
    assert all(1 <= piece.length <= largest for batch in dealt for piece in batch)
    bytes_of = [(piece.file, at) for batch in dealt for piece in batch
                for at in range(piece.offset, piece.offset + piece.length)]  # fmt: skip
    everything = [(file, at) for file, length in files for at in range(length)]
    assert bytes_of == everything[: len(bytes_of)]


@pytest.mark.parametrize(("accelerators", "readers", "prefetch"), [(1, 1, 1), (1, 4, 4), (3, 2, 2), (4, 3, 100)])
def test_every_batch_is_taken_once_and_every_byte_read(
    files: Files, accelerators: int, readers: int, prefetch: int
) -> None:
    job = a_job(accelerators=accelerators, readers=readers, prefetch=prefetch)
    run = simulate(files, job, seconds=100, machine=Machine())
    assert run.exhausted
    assert run.steps == 24
    assert run.reading.tiers.total == 24 * 64 * KIB
    assert run.reading.tiers.page_cache == 0
    assert 24 - accelerators <= round(run.busy / job.step_time) <= 24


def test_accelerators_that_compute_for_long_are_stopped_in_time(files: Files) -> None:
    run = simulate(files, a_job(step_time=3600.0), seconds=0.5, machine=Machine())
    assert (run.steps, run.exhausted) == (1, False)
    assert 0.2 < run.busy < 0.6


def test_readers_stay_no_further_ahead_than_they_may(files: Files) -> None:
    run = simulate(files, a_job(step_time=3600.0, prefetch=3), seconds=0.5, machine=Machine())
    assert run.reading.tiers.total == 4 * 64 * KIB  # the one that is computed on, and three ahead


def test_what_waits_for_data_is_not_busy(files: Files) -> None:
    run = simulate(files, a_job(step_time=1e-6), seconds=100, machine=Machine())
    assert run.share < 0.85


def test_files_that_fill_no_batch_are_no_step(files: Files) -> None:
    run = simulate(files, a_job(batch_size=10**6), seconds=100, machine=Machine())
    assert (run.steps, run.reading.tiers.total, run.share, run.exhausted) == (0, 0, 0.0, True)


def test_small_samples_are_read_together(files: Files) -> None:
    (batch,) = list(batches(files[:1], 128 * KIB, max(10, SMALLEST)))
    assert [piece.length for piece in batch] == [SMALLEST, SMALLEST]


def test_damaged_view_ends_the_run_and_is_named(files: Files) -> None:
    files[5][0].unlink()
    with pytest.raises(CacheError, match="can't be read"):
        simulate(files, a_job(), seconds=100, machine=Machine())


@pytest.mark.parametrize(("busy", "elapsed", "share"), [(9.0, 10.0, 0.9), (0.0, 5.0, 0.0), (5.1, 5.0, 1.0), (0, 0, 0)])
def test_share_is_what_was_computed_of_the_time(busy: float, elapsed: float, share: float) -> None:
    assert Run(Reading(Tiers(), 1, 0, 0), 9, busy, elapsed, exhausted=False).share == share
