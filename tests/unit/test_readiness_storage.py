from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from prefect_stagegate.errors import AccessDenied, SourceUnavailable
from prefect_stagegate.model import Outcome
from prefect_stagegate.readiness import Probe
from prefect_stagegate.readiness.base import NoParameters
from prefect_stagegate.readiness.source import read_probe
from prefect_stagegate.readiness.storage import CacheFit, Space, cache_fit, space
from prefect_stagegate.testing.questions import VOLUME, a_question

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
    assert cache_fit(a_question(bytes=300, volume=lambda: volume), CacheFit()).outcome is outcome


def test_no_bytes_fit_into_anything_and_prove_nothing() -> None:
    assert cache_fit(a_question(bytes=0), CacheFit()).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("free", "outcome"),
    [(1000, Outcome.PASS), (200, Outcome.PASS), (199, Outcome.WARN), (150, Outcome.WARN), (149, Outcome.FAIL)],
)
def test_space_goes_by_the_used_share(free: int, outcome: Outcome) -> None:
    answer = space(a_question(volume=lambda: replace(VOLUME, free=free)), Space())
    assert answer.outcome is outcome
    if outcome is not Outcome.PASS:
        assert "stagegate gc" in answer.findings[0].fix


def test_volume_that_tells_no_size_is_inconclusive() -> None:
    assert space(a_question(volume=lambda: replace(VOLUME, total=0)), Space()).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(("model", "wrong"), [(CacheFit, {"warn": 1, "fail": 2}), (Space, {"warn": 0.9, "fail": 0.8})])
def test_thresholds_the_wrong_way_round_are_refused(model: type[CacheFit | Space], wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="must not be"):
        model(**wrong)


def test_read_probe_passes_when_every_source_was_read() -> None:
    answer = read_probe(a_question(), NONE)
    assert answer.outcome is Outcome.PASS
    assert answer.measured.keys() == {"s3://lake/flights/", "file:///mnt/nas/"}


def test_one_source_that_is_refused_fails_and_is_named_with_what_to_do() -> None:
    denied = Probe("s3://lake/flights/", error=AccessDenied("the key may not list", hint="Ask for s3:ListBucket."))
    probes = [denied, Probe("file:///mnt/nas/", "a", 10)]
    answer = read_probe(a_question(probe_source=probes.__getitem__), NONE)
    assert answer.outcome is Outcome.FAIL
    assert [(finding.subject, finding.fix) for finding in answer.findings] == [
        ("s3://lake/flights/", "Ask for s3:ListBucket.")
    ]


@pytest.mark.parametrize(
    "unknown",
    [Probe("s3://lake/flights/", error=SourceUnavailable("nobody answers")), Probe("s3://lake/flights/", read=0)],
    ids=["unreachable", "nothing to read"],
)
def test_source_that_gives_no_answer_is_inconclusive(unknown: Probe) -> None:
    answer = read_probe(a_question(probe_source=[unknown, Probe("file:///mnt/nas/", "a", 10)].__getitem__), NONE)
    assert answer.outcome is Outcome.INCONCLUSIVE
