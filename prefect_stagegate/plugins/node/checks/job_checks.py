"""The training job.

Checks that this node feeds the job that trains on the version, as `job:` in the spec describes it.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from prefect_stagegate.gate.base import CheckResult, Floors, Parameters, one_finding
from prefect_stagegate.gate.check_context import CheckContext, local_view
from prefect_stagegate.gate.registry import Check, Renewal
from prefect_stagegate.model import Outcome, Scope
from prefect_stagegate.plugins.node.accelerators import Run, simulate
from prefect_stagegate.plugins.node.bottleneck import FIXES, Bottleneck, bottleneck
from prefect_stagegate.plugins.node.checks.gpu import machine
from prefect_stagegate.plugins.node.feed import read_cold, sample
from prefect_stagegate.plugins.node.tiers import Reading
from prefect_stagegate.spec import ByteSize, Duration, JobSpec
from prefect_stagegate.spec.fields import bounded
from prefect_stagegate.units import bytes_text, count_text

HOLDS = timedelta(days=1)
"""A volume slows down as it fills and ages, and that takes days; who shares it changes from day to day."""
FIRST = 0.75
"""The part of the time and of the bytes that measures; the rest is for finding the bottleneck."""
MORE = 4
"""How many times the readers are tried to see whether readers are what lacks."""
MOST_READERS = 256
FEWEST_STEPS = 3
"""Steps of each accelerator below which the share of time says nothing."""
EXAMPLE = "Add to the spec: job: {batch_size: 400, sample_size: 114kB, step_time: 0.224, accelerators: 8}"


class Bounds(Parameters):
    """How much may be read for an answer."""

    seconds: Annotated[Duration, bounded("1s", "1h")] = Field(
        default=timedelta(seconds=10),
        description="How long it may read.",
        examples=["1m"],
    )
    bytes: ByteSize = Field(default=2 * 2**30, ge=1, description="How many bytes it may read.", examples=["16GiB"])
    files: int = Field(default=10_000, ge=1, le=1_000_000, description="How many files it may open.", examples=[1000])


class FeedRate(Bounds, Floors):
    """Less than the job needs leaves accelerators waiting; a tenth less may be hidden by what varies."""

    warn: float = Field(default=1.0, gt=0, description="The ratio below which it warns.", examples=[1.2])
    fail: float = Field(default=0.9, gt=0, description="The ratio below which it fails.", examples=[1.0])


class Utilisation(Bounds, Floors):
    """MLPerf Storage counts a result of unet3d or resnet50 only from 0.90 on."""

    warn: float = Field(default=0.90, gt=0, le=1, description="The busy share below which it warns.", examples=[0.95])
    fail: float = Field(default=0.85, gt=0, le=1, description="The busy share below which it fails.", examples=[0.7])


@Check("feed_rate", owner="infra", scope=Scope.NODE, ttl=HOLDS, binds=("job",), renewal=Renewal.CHEAP)
def feed_rate(context: CheckContext, parameters: FeedRate) -> CheckResult:
    """Whether this node reads the version as fast as its job needs it: cold bytes a second ÷ bytes a second needed.

    Needed are batch_size × sample_size ÷ step_time × accelerators of `job:`. At least `warn` (1.0) of that passes, at
    least `fail` (0.9) warns, less fails.

    A sample of the version's files is read through its view, by as many readers as the job has (at most 256), dropped
    from the page cache before, and past it (O_DIRECT) where the file system allows: at most `seconds` (10s), `bytes`
    (2GiB) and `files` (10,000). Inconclusive without `job:`, where the version isn't staged, and where nothing was read
    or most came from the page cache after all. Where it falls short it tries more readers, and names what holds it
    back.
    """
    job, view = context.spec.job, local_view(context)
    if job is None or view is None:
        return _nothing_to_measure(context)
    files = _sample(context, view, parameters, FIRST)
    seconds, readers = parameters.seconds.total_seconds(), min(job.readers * job.accelerators, MOST_READERS)
    reading = read_cold(files, readers=readers, seconds=FIRST * seconds, machine=machine(context))
    measured = _measured(context, job, reading) | {"ratio": round(reading.rate / job.needs, 4), "readers": readers}
    # A rate that the page cache gave must not pass.
    if (unproved := _unproved(context, reading, measured)) is not None:
        return unproved
    summary = f"{bytes_text(reading.rate)}/s cold, and the job needs {bytes_text(job.needs)}/s"
    if reading.rate >= parameters.warn * job.needs:
        return CheckResult(Outcome.PASS, summary, measured=measured)
    outcome = Outcome.WARN if reading.rate >= parameters.fail * job.needs else Outcome.FAIL
    return _with_cause(context, view, parameters, reading, CheckResult(outcome, summary, measured=measured))


@Check("utilisation", owner="ai", scope=Scope.NODE, ttl=HOLDS, binds=("job",), renewal=Renewal.CHEAP)
def utilisation(context: CheckContext, parameters: Utilisation) -> CheckResult:
    """How much of their time the job's accelerators would compute on this node, rather than wait for data.

    As in MLPerf Storage, accelerators only pretend to compute: each sleeps `step_time` on a batch while its `readers`
    read up to `prefetch` batches ahead from the version's files. Busy share = time slept ÷ time from the first batch to
    the last. At least `warn` (0.90) passes, at least `fail` (0.85) warns, less fails. MLPerf Storage asks 0.90 of
    unet3d and resnet50, 0.70 of cosmoflow. Files are dropped from the page cache before: at most `seconds` (10s),
    `bytes` (2GiB) and `files` (10,000). The readers don't decode, so a job that decodes needs more of the processor.
    Inconclusive as `feed_rate`, and where each accelerator took fewer than three batches without ever lacking one.
    """
    job, view = context.spec.job, local_view(context)
    if job is None or view is None:
        return _nothing_to_measure(context)
    files = _sample(context, view, parameters, FIRST)
    seconds = FIRST * parameters.seconds.total_seconds()
    run = simulate(files, job, seconds=seconds, machine=machine(context))
    measured = _measured(context, job, run.reading) | {"busy_share": round(run.share, 4), "steps": run.steps}
    if (unproved := _unproved(context, run.reading, measured)) is not None:
        return unproved
    summary = f"{count_text(job.accelerators, 'accelerator')} busy {run.share:.0%} of the time"
    # Few steps with a low share are no accident: the accelerators waited, so that falls through to the limits.
    if run.steps < FEWEST_STEPS * job.accelerators and (run.exhausted or run.share >= parameters.fail):
        return _too_few_steps(context, run, job, measured)
    if run.share >= parameters.warn:
        return CheckResult(Outcome.PASS, summary, measured=measured)
    outcome = Outcome.WARN if run.share >= parameters.fail else Outcome.FAIL
    return _with_cause(context, view, parameters, run.reading, CheckResult(outcome, summary, measured=measured))


def _nothing_to_measure(context: CheckContext) -> CheckResult:
    """The answer without a `job:`, or without the version on this node."""
    if context.spec.job is None:
        return one_finding(Outcome.INCONCLUSIVE, "job", "the spec has no `job:`", EXAMPLE)
    problem, fix = "the version is not staged on this node", f"stagegate stage {context.address}"
    return one_finding(Outcome.INCONCLUSIVE, context.address, problem, fix)


def _sample(context: CheckContext, view: Path, bounds: Bounds, part: float) -> tuple[tuple[Path, int], ...]:
    limit = max(int(part * bounds.bytes), 1)
    return sample(view, context.entries(), files=bounds.files, limit=limit, seed=context.digest)


def _measured(context: CheckContext, job: JobSpec, reading: Reading) -> dict[str, Any]:
    memory = machine(context).memory()
    return {
        "needs": round(job.needs),
        "bytes": reading.tiers.total,
        "tiers": asdict(reading.tiers),
        "cached_before": reading.cached_before,
        "seconds": round(reading.seconds, 3),
        "cpu_seconds": round(reading.cpu, 3),
        "rate": round(reading.rate),
        "version_to_memory": round(context.bytes / memory, 3) if memory else "unknown",
    }


def _unproved(context: CheckContext, reading: Reading, measured: dict[str, Any]) -> CheckResult | None:
    """The answer where the reading proves nothing; None where it does."""
    if not reading.tiers.total:
        fix = f"See what the version holds: stagegate show {context.address} --rows"
        return one_finding(Outcome.INCONCLUSIVE, context.address, "0 bytes were read", fix, measured)
    if reading.warm:
        cause = Bottleneck.PAGE_CACHE
        share = reading.tiers.page_cache / reading.tiers.total
        measured = measured | {"bottleneck": cause.value}
        problem = f"only the page cache was read ({share:.0%} of the bytes), not the volume"
        return one_finding(Outcome.INCONCLUSIVE, cause.value, problem, FIXES[cause], measured)
    return None


def _too_few_steps(context: CheckContext, run: Run, job: JobSpec, measured: dict[str, Any]) -> CheckResult:
    """The answer where too few steps ran to measure a busy share."""
    wanted = FEWEST_STEPS * job.accelerators
    if context.bytes < wanted * job.batch_bytes:
        fix = f"The version has only {bytes_text(context.bytes)}, and a batch {bytes_text(job.batch_bytes)}: correct "
        fix += "`batch_size` and `sample_size` of `job:`, or leave utilisation out of this gate."
    elif run.exhausted:
        fix = f"Raise `bytes` and `files` of utilisation: {bytes_text(wanted * job.batch_bytes)} make {wanted} batches."
    else:
        fix = f"Raise `seconds` of utilisation: a step takes {job.step_time:g} s."
    problem = f"{count_text(run.steps, 'batch')} were taken; {wanted} are required"
    return one_finding(Outcome.INCONCLUSIVE, "steps", problem, fix, measured)


def _with_cause(
    context: CheckContext, view: Path, bounds: Bounds, reading: Reading, answer: CheckResult
) -> CheckResult:
    """Read again with more readers to find the bottleneck, and add it to the answer of a node that falls short."""
    job = context.spec.job
    readers = min(MORE * (job.readers * job.accelerators if job else 1), MOST_READERS)
    # The first reading took the other part, so both together keep the bounds of the gate.
    seconds = (1 - FIRST) * bounds.seconds.total_seconds()
    files = _sample(context, view, bounds, 1 - FIRST)
    more = read_cold(files, readers=readers, seconds=seconds, machine=machine(context))
    cause = bottleneck(reading, more, cores=len(os.sched_getaffinity(0)))
    fix, summary = FIXES[cause].format(address=context.address), f"{answer.summary}; bottleneck: {cause.value}"
    measured = {**answer.measured, "bottleneck": cause.value, "rate_with_more_readers": round(more.rate)}
    return one_finding(answer.outcome, cause.value, answer.summary, fix, measured, summary=summary)
