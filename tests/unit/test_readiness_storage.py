from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from prefect_stagegate.checks.source_access import read_probe
from prefect_stagegate.checks.storage import (
    CacheFit,
    Integrity,
    UsedShare,
    cache_fit,
    cache_integrity,
    inodes,
    space,
)
from prefect_stagegate.errors import AccessDenied, SourceUnavailable
from prefect_stagegate.gate import CheckResult
from prefect_stagegate.gate.base import NoParameters
from prefect_stagegate.jobs.staging.probe import SourceProbe
from prefect_stagegate.model import Finding, Outcome
from prefect_stagegate.testing.contexts import DIGEST, VOLUME, check_context

NONE = NoParameters()


@pytest.mark.parametrize(
    ("free", "floor", "held", "outcome"),
    [
        (360, 0, 0, Outcome.PASS),
        (359, 0, 0, Outcome.WARN),
        (300, 0, 0, Outcome.WARN),
        (299, 0, 0, Outcome.FAIL),
        (410, 50, 0, Outcome.PASS),
        (409, 50, 0, Outcome.WARN),
        (60, 0, 300, Outcome.PASS),
        (10, 50, 300, Outcome.WARN),
        (10, 50, 299, Outcome.FAIL),
    ],
)
def test_cache_fit_counts_room_above_the_floor_and_what_is_held(
    free: int, floor: int, held: int, outcome: Outcome
) -> None:
    volume = replace(VOLUME, free=free, floor=floor, held=held)
    assert cache_fit(check_context(bytes=300, cache_volume=volume), CacheFit()).outcome is outcome


@pytest.mark.parametrize(
    ("quota_left", "outcome"), [(None, Outcome.PASS), (61, Outcome.PASS), (60, Outcome.WARN), (-5, Outcome.FAIL)]
)
def test_cache_fit_keeps_the_limit_of_the_cache(quota_left: int | None, outcome: Outcome) -> None:
    volume = replace(VOLUME, free=1000, floor=0, held=299, quota_left=quota_left)
    assert cache_fit(check_context(bytes=300, cache_volume=volume), CacheFit()).outcome is outcome


def test_no_bytes_fit_into_anything_and_prove_nothing() -> None:
    assert cache_fit(check_context(bytes=0), CacheFit()).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("free", "outcome"),
    [(1000, Outcome.PASS), (200, Outcome.PASS), (199, Outcome.WARN), (150, Outcome.WARN), (149, Outcome.FAIL)],
)
def test_space_goes_by_the_used_share(free: int, outcome: Outcome) -> None:
    answer = space(check_context(cache_volume=replace(VOLUME, free=free)), UsedShare())
    assert answer.outcome is outcome
    if outcome is not Outcome.PASS:
        assert "stagegate gc" in answer.findings[0].fix


def test_volume_that_tells_no_size_is_inconclusive() -> None:
    assert space(check_context(cache_volume=replace(VOLUME, total=0)), UsedShare()).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("model", "wrong"), [(CacheFit, {"warn": 1, "fail": 2}), (UsedShare, {"warn": 0.9, "fail": 0.8})]
)
def test_thresholds_the_wrong_way_round_are_refused(model: type[CacheFit | UsedShare], wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="must not be"):
        model(**wrong)


def test_read_probe_passes_when_every_source_was_read() -> None:
    answer = read_probe(check_context(), NONE)
    assert answer.outcome is Outcome.PASS
    assert answer.measured.keys() == {"s3://lake/flights/", "file:///mnt/nas/"}


def test_refused_source_fails_and_is_named_with_a_fix() -> None:
    denied = SourceProbe(
        "s3://lake/flights/", error=AccessDenied("the key may not list", hint="Ask for s3:ListBucket.")
    )
    probes = [denied, SourceProbe("file:///mnt/nas/", "a", 10)]
    answer = read_probe(check_context(probe_source=probes.__getitem__), NONE)
    assert answer.outcome is Outcome.FAIL
    assert [(finding.subject, finding.fix) for finding in answer.findings] == [
        ("s3://lake/flights/", "Ask for s3:ListBucket.")
    ]


@pytest.mark.parametrize(
    "unknown",
    [
        SourceProbe("s3://lake/flights/", error=SourceUnavailable("nobody answers")),
        SourceProbe("s3://lake/flights/", read=0),
    ],
    ids=["unreachable", "nothing to read"],
)
def test_source_that_gives_no_answer_is_inconclusive(unknown: SourceProbe) -> None:
    answer = read_probe(
        check_context(probe_source=[unknown, SourceProbe("file:///mnt/nas/", "a", 10)].__getitem__), NONE
    )
    assert answer.outcome is Outcome.INCONCLUSIVE


def full(share: float, **changes: Any) -> CheckResult:
    volume = replace(VOLUME, inodes=1000, free_inodes=round(1000 * (1 - share)), **changes)
    return inodes(check_context(cache_volume=volume), UsedShare())


@pytest.mark.parametrize(
    ("share", "outcome"), [(0.8, Outcome.PASS), (0.81, Outcome.WARN), (0.85, Outcome.WARN), (0.86, Outcome.FAIL)]
)
def test_inodes_run_out(share: float, outcome: Outcome) -> None:
    answer = full(share)
    assert (answer.outcome, answer.measured["inodes"]) == (outcome, 1000)


def test_a_file_system_without_fixed_inodes_is_not_asked() -> None:
    assert inodes(check_context(), UsedShare()).outcome is Outcome.NOT_APPLICABLE


def test_a_damaged_file_fails_and_its_repair_is_named() -> None:
    damaged = Integrity(2, 300, (Finding("a.parquet", "its bytes hash to another digest", "x"),))
    answer = cache_integrity(check_context(copy_integrity=damaged), NoParameters())
    assert answer.outcome is Outcome.FAIL
    assert answer.findings[0].fix == f"stagegate verify nycflights@{DIGEST} --repair"
    assert cache_integrity(check_context(), NoParameters()).outcome is Outcome.PASS


@pytest.mark.parametrize("integrity", [Integrity(0, 0), Integrity(3, 0)])
def test_nothing_hashed_is_no_pass(integrity: Integrity) -> None:
    assert cache_integrity(check_context(copy_integrity=integrity), NoParameters()).outcome is Outcome.INCONCLUSIVE
