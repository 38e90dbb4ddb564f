"""Models.

A check on how good models trained on the data became.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from prefect_stagegate.errors import Cancelled, StagegateError, UsageError
from prefect_stagegate.gate.accepted import reference
from prefect_stagegate.gate.base import CheckResult, from_findings, one_finding
from prefect_stagegate.gate.check_context import Binding, CheckContext, Fact
from prefect_stagegate.gate.evidence_rules import CLOCKS_DIFFER
from prefect_stagegate.gate.registry import Check, Renewal
from prefect_stagegate.model import Finding, Outcome
from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.plugins.runs.metrics.metric_parameters import MetricBounds, MetricsParameters, NoWorseThan
from prefect_stagegate.plugins.runs.metrics.run_figures import NoFigures, RunFigures, figures_of
from prefect_stagegate.units import age_text, digest_text, time_text

_ROUNDING = 1e-9
"""Relative difference of two distances that are equal."""
_EVALUATE = "Evaluate the model again, log a number, and check the version again."
_SAMPLES = "Evaluate it on more samples, or lower `least` in the gate."
_DATA = "Find what changed in the data, and deliver it again."
_NONE = RunFigures("", None, {})


@dataclass(frozen=True, slots=True)
class Incumbent:
    """The version that a target names, with its figures or why there are none."""

    digest: str = ""
    """Empty where the target has no version yet."""
    figures: RunFigures = _NONE
    problem: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The figures of the candidate, and of the versions that it is compared with, by ref."""

    candidate: RunFigures
    incumbents: Mapping[str, Incumbent]


@Fact
def compared(context: CheckContext, written: str) -> Comparison:
    """The figures of the version and of those that it is compared with; `written` are the parameters as JSON."""
    parameters = MetricsParameters.model_validate_json(written)
    if not parameters.url:
        hint = "Write the address of the server, or the path of the file."
        raise UsageError("The gate names no `url` for metrics", hint=hint)
    candidate = figures_of(context, parameters, context.digest, parameters.run)
    rules = [bounds.no_worse_than for bounds in parameters.compare.values()]
    refs = dict.fromkeys(rule.ref for rule in rules if rule)
    return Comparison(candidate, {ref: _incumbent(context, parameters, ref) for ref in refs})


def _incumbent(context: CheckContext, parameters: MetricsParameters, ref: str) -> Incumbent:
    known = (context.target, *context.spec.gates)
    if ref not in known and context.workspace.catalog.ref(context.dataset, ref) is None:
        # A mistyped target must not pass for one without a version.
        hint = "Name a target of the spec in `no_worse_than`."
        raise UsageError(f"{context.dataset} has no target {ref!r}", hint=hint)
    accepted = reference(context, "" if ref == context.target else ref)
    if accepted is None:
        return Incumbent()
    try:
        figures = figures_of(context, parameters, accepted.digest)
    except Cancelled:
        raise
    except StagegateError as error:  # the candidate's own bounds count all the same
        return Incumbent(accepted.digest, _NONE, error.message, error.hint)
    return Incumbent(accepted.digest, figures, _too_few(parameters, figures), _SAMPLES)


def _bound(name: str, read: Callable[[Comparison, MetricsParameters], Any]) -> Binding:
    """A binding to a part of the comparison; none where the gate asks for no metrics."""

    def value(context: CheckContext) -> str | None:
        params = next((each.params for each in context.gate.requirements if each.check == "metrics"), {})
        parameters = MetricsParameters.model_validate(params)
        if not parameters.compare:
            return None
        return digest_of(read(compared(context, parameters.model_dump_json()), parameters))

    return Binding(name, value)


def _bound_figures(found: Comparison, parameters: MetricsParameters) -> Any:
    # Prometheus' figures move all the time: evidence ends when a bound no longer holds.
    if parameters.source == "prometheus":
        return [[finding.subject, finding.outcome.value] for finding in _findings(parameters, found)]
    return [found.candidate.as_json(), {ref: each.figures.as_json() for ref, each in found.incumbents.items()}]


RUN = _bound("run", lambda found, _: [found.candidate.run, {k: v.figures.run for k, v in found.incumbents.items()}])
INCUMBENT = _bound("incumbent", lambda found, _: {ref: each.digest for ref, each in found.incumbents.items()})
FIGURES = _bound("figures", _bound_figures)


@Check("metrics", owner="ai", binds=(RUN, INCUMBENT, FIGURES), renewal=Renewal.CHEAP)
def metrics(context: CheckContext, parameters: MetricsParameters) -> CheckResult:
    """Whether a model that was trained on this version is good enough, and no worse than one of the version before.

    Each metric under `compare` must be within `min` and `max`, and at most `by` worse than that of the version which
    the target `ref` names: else it fails. Figures count only of a run that used the version: by the record of uses
    (`mlflow`), or where they name its digest (`file`, `prometheus`). Anything else is inconclusive: no such run, one
    that is open, failed or older than `max_age`, a missing metric, NaN, too few `samples`, a missing signature, a
    server that does not answer. Evidence ends with other figures, another run or another incumbent; with `prometheus`,
    once a bound no longer holds.
    """
    if not parameters.compare:
        fix = "Write its bounds under `compare` in the gate."
        return one_finding(Outcome.INCONCLUSIVE, "metrics", "the gate names no metric", fix)
    found = compared(context, parameters.model_dump_json())
    candidate, others = found.candidate, found.incumbents.items()
    versions = {context.digest: candidate, **{each.digest: each.figures for _, each in others if each.digest}}
    measured = {
        "figures": {digest: figures.as_json() for digest, figures in versions.items()},
        "runs": {digest: figures.run for digest, figures in versions.items() if figures.run},
        "incumbents": {ref: each.digest for ref, each in others},
    }
    if parameters.max_age is not None:
        _require_young(candidate, context.now - candidate.at if candidate.at else None, parameters.max_age)
    if problem := _too_few(parameters, candidate):
        return one_finding(Outcome.INCONCLUSIVE, candidate.run or "samples", problem, _SAMPLES, measured)
    good = "; ".join(_passed(name, bounds, found) for name, bounds in parameters.compare.items())
    until = candidate.at + parameters.max_age if candidate.at and parameters.max_age else None
    return replace(from_findings(good, _findings(parameters, found), measured), until=until)


def _require_young(figures: RunFigures, age: timedelta | None, limit: timedelta) -> None:
    """Raise where the figures are too old, or their time can't be right."""
    subject, hint = f"The figures of {figures.run}".removesuffix(" of "), "Evaluate a model of this version again."
    if figures.at is None or age is None:
        raise NoFigures(f"{subject} have no time, and the gate has a `max_age`", hint=hint)
    if age < -CLOCKS_DIFFER:
        raise NoFigures(f"{subject} are dated {time_text(figures.at)}, so a clock is wrong", hint=hint)
    if age > limit:
        dated = time_text(figures.at)
        raise NoFigures(f"{subject} are of {dated}, more than {age_text(limit)} before the check", hint=hint)


def _too_few(parameters: MetricsParameters, figures: RunFigures) -> str:
    """Why the figures rest on too few samples; empty where they don't."""
    if parameters.samples is None:
        return ""
    name, least = parameters.samples.name, parameters.samples.least
    if problem := figures.problem(name):
        return f"{name} {problem}, so that nobody knows how many samples there were"
    count = figures.values[name]
    return f"the figures rest on {count:,.0f} samples; {least:,} are required" if count < least else ""


def _findings(parameters: MetricsParameters, found: Comparison) -> Iterator[Finding]:
    for name, bounds in parameters.compare.items():
        if problem := found.candidate.problem(name):
            yield Finding(name, f"it {problem}", _EVALUATE, Outcome.INCONCLUSIVE)
            continue
        value = found.candidate.values[name]
        if bounds.min is not None and value < bounds.min:
            yield Finding(name, f"it is {value:.6g}, below {bounds.min:.6g}", _DATA)
        if bounds.max is not None and value > bounds.max:
            yield Finding(name, f"it is {value:.6g}, above {bounds.max:.6g}", _DATA)
        if bounds.no_worse_than and found.incumbents[bounds.no_worse_than.ref].digest:
            yield from _against(name, value, bounds.no_worse_than, found)


def _against(name: str, value: float, rule: NoWorseThan, found: Comparison) -> Iterator[Finding]:
    incumbent = found.incumbents[rule.ref]
    whose, figures = f"{rule.ref}'s {digest_text(incumbent.digest)}", incumbent.figures
    problem, fix = incumbent.problem or figures.problem(name), incumbent.fix or _EVALUATE
    if not problem and figures.run and figures.run == found.candidate.run:
        problem, fix = f"{figures.run} used both versions", "Train on each version in a run of its own."
    if problem:
        text = problem if incumbent.problem or "used" in problem else f"that one {problem}"
        yield Finding(name, f"it can't be compared with {whose}: {text}", fix, Outcome.INCONCLUSIVE)
        return
    other = figures.values[name]
    worse = value - other if rule.lower_is_better else other - value
    if worse > rule.by and not math.isclose(worse, rule.by, rel_tol=_ROUNDING):
        more = f"more than {rule.by:.6g} worse" if rule.by else "worse"
        yield Finding(name, f"it is {value:.6g}, {more} than the {other:.6g} of {whose}", _DATA)


def _passed(name: str, bounds: MetricBounds, found: Comparison) -> str:
    """What to say of a metric that passes."""
    text = f"{name} is {found.candidate.values.get(name, math.nan):.6g}"
    if bounds.no_worse_than is None:
        return text
    ref, other = bounds.no_worse_than.ref, found.incumbents[bounds.no_worse_than.ref]
    figure = f"{other.figures.values.get(name, math.nan):.6g} at {ref}"
    return f"{text}, and {figure}" if other.digest else f"{text}; {ref} has no version to compare with"
