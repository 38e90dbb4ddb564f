"""Checks on the volume that holds this node's cache."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field, model_validator

from prefect_stagegate.model import Finding, Outcome, Scope
from prefect_stagegate.readiness.base import Answer, Parameters, Renewal, check
from prefect_stagegate.readiness.question import Question, Volume
from prefect_stagegate.units import bytes_text

HOLDS = timedelta(minutes=5)
"""A volume that others write to too can fill up in minutes."""
MANY = 100
"""How many times a version may fit before its number says nothing any more."""
MORE_ROOM = "Run `stagegate gc`, or give the cache a larger volume with --cache or STAGEGATE_CACHE."


class CacheFit(Parameters):
    """A fifth more than the data itself leaves room for the next delivery."""

    warn: float = Field(default=1.2, gt=0, description="The ratio below which it warns.", examples=[1.5])
    fail: float = Field(default=1.0, gt=0, description="The ratio below which it fails.", examples=[1.0])

    @model_validator(mode="after")
    def _ordered(self) -> CacheFit:
        if self.warn < self.fail:
            raise ValueError("`warn` must not be smaller than `fail`")
        return self


@check("cache_fit", owner="infra", scope=Scope.NODE, ttl=HOLDS, renewal=Renewal.CHEAP)
def cache_fit(question: Question, parameters: CacheFit) -> Answer:
    """Whether the version fits into the cache: (free above the floor + bytes already held) ÷ bytes of the version.

    At least `warn` (1.2) passes, at least `fail` (1.0) warns, less fails.
    """
    if question.bytes < 1:
        return Answer(Outcome.INCONCLUSIVE, "the version has 0 bytes")
    volume = question.volume()
    room = max(volume.free - volume.floor, 0) + volume.held
    ratio = room / question.bytes
    measured = _measured(volume) | {"bytes": question.bytes, "ratio": round(ratio, 4)}
    times = f"{ratio:.1f}" if ratio < MANY else f"more than {MANY}"
    summary = f"room for {times} times the version: {bytes_text(room)} for {bytes_text(question.bytes)}"
    if ratio >= parameters.warn:
        return Answer(Outcome.PASS, summary, measured=measured)
    outcome = Outcome.WARN if ratio >= parameters.fail else Outcome.FAIL
    wanted = (parameters.warn if outcome is Outcome.WARN else parameters.fail) * question.bytes
    problem = f"it has {bytes_text(room)} for this version, and {bytes_text(wanted)} are wanted"
    return Answer(outcome, summary, (Finding(str(volume.path), problem, MORE_ROOM, outcome),), measured)


class Space(Parameters):
    """Many file systems slow down above 80 to 85 %."""

    warn: float = Field(default=0.80, gt=0, le=1, description="The used share above which it warns.", examples=[0.8])
    fail: float = Field(default=0.85, gt=0, le=1, description="The used share above which it fails.", examples=[0.9])

    @model_validator(mode="after")
    def _ordered(self) -> Space:
        if self.warn > self.fail:
            raise ValueError("`warn` must not be larger than `fail`")
        return self


@check("space", owner="infra", scope=Scope.NODE, ttl=HOLDS, renewal=Renewal.CHEAP)
def space(question: Question, parameters: Space) -> Answer:
    """How full the cache's volume is: up to `warn` (0.80) used passes, up to `fail` (0.85) warns, more fails."""
    volume = question.volume()
    if volume.total < 1:
        return Answer(Outcome.INCONCLUSIVE, f"{volume.path} tells no size")
    used = 1 - volume.free / volume.total
    measured = _measured(volume) | {"used_share": round(used, 4)}
    summary = f"{used:.0%} of {bytes_text(volume.total)} used"
    if used <= parameters.warn:
        return Answer(Outcome.PASS, summary, measured=measured)
    outcome = Outcome.WARN if used <= parameters.fail else Outcome.FAIL
    limit = parameters.warn if outcome is Outcome.WARN else parameters.fail
    problem = f"{used:.1%} is used, and {limit:.0%} is the limit"
    return Answer(outcome, summary, (Finding(str(volume.path), problem, MORE_ROOM, outcome),), measured)


def _measured(volume: Volume) -> dict[str, int]:
    return {"total": volume.total, "free": volume.free, "floor": volume.floor, "held": volume.held}
