"""Replaying: decide an old record again under another policy. Pure: no check runs, and no clock is read.

Recorded answers stand. A check whose parameters differ now is evaluated again from the figures that it measured, where
they suffice (`AGAIN`), and is inconclusive where they don't. A waiver counts if it counted at the time of the decision.
Replayed under its own policy, a record gives the same decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prefect_stagegate.gate.evidence_rules import expired, parameters_digest
from prefect_stagegate.gate.gate import conclude
from prefect_stagegate.gate.overrides import case_of, unruled
from prefect_stagegate.gate.registry import CHECKS
from prefect_stagegate.gate.renewal import LETS_THROUGH
from prefect_stagegate.model import Decision, Evidence, Outcome, Severity
from prefect_stagegate.spec import Gate, Requirement

UNTOLD = "it ran with other parameters, and its figures are not enough to decide again"


def _graded(*, passes: bool, warns: bool) -> Outcome:
    return Outcome.PASS if passes else Outcome.WARN if warns else Outcome.FAIL


AGAIN: Mapping[str, Callable[[Mapping[str, Any], Any], Outcome]] = {
    "freshness": lambda measured, limits: _graded(
        passes=measured["age_seconds"] < limits.warn.total_seconds(),
        warns=measured["age_seconds"] < limits.fail.total_seconds(),
    ),
    "cache_fit": lambda measured, limits: _graded(
        passes=measured["ratio"] >= limits.warn, warns=measured["ratio"] >= limits.fail
    ),
    "space": lambda measured, limits: _graded(
        passes=measured["used_share"] <= limits.warn, warns=measured["used_share"] <= limits.fail
    ),
    "inodes": lambda measured, limits: _graded(
        passes=measured["used_share"] <= limits.warn, warns=measured["used_share"] <= limits.fail
    ),
    "rollback": lambda measured, limits: _graded(
        passes=measured["age_seconds"] <= limits.warn.total_seconds(), warns=True
    ),
    "soak": lambda measured, limits: _graded(
        passes=measured["stood_seconds"] >= limits.period.total_seconds(), warns=False
    ),
}
"""How to evaluate a check again with other limits, for the checks whose recorded figures suffice."""


@dataclass(frozen=True, slots=True)
class Flip:
    """One check that blocks under one policy and not under the other."""

    check: str
    before: str
    """Its outcome under the old policy; `not required` when that did not require it."""
    after: str
    why: str
    """Its answer under the new policy, with the gate's override."""


def replay(decision: Decision, gate: Gate, record: Iterable[Evidence] = ()) -> Decision:
    """Decide as another gate would have at the moment of a decision, from the same evidence.

    `record` is other evidence about the version, the oldest first, for checks that the decision did not need. What is
    younger than the decision is ignored.
    """
    history = [answer for answer in record if answer.at <= decision.at]
    # An answer without a time stands for a check that never ran, and is no evidence.
    known = {answer.check: answer for answer in decision.checks if answer.at}
    answers, counted = [], []
    for requirement in gate.requirements:
        answer = known.get(requirement.check)
        answer = _held_answer(requirement, decision, history) if answer is None else answer
        if answer is not None:
            answers.append(_reevaluated(unruled(answer), requirement))
            counted += [_reevaluated(recorded, requirement) for recorded in _counted_answers(answer, history)]
    waivers = [answer.ruling.waiver for answer in decision.checks if answer.ruling and answer.ruling.waiver]
    return conclude(case_of(decision), gate, answers, waivers=waivers, record=counted)


def flips(before: Decision, after: Decision) -> tuple[Flip, ...]:
    """The checks that block one of two decisions and not the other."""
    old, new = ({answer.check: answer for answer in decision.checks} for decision in (before, after))
    return tuple(
        Flip(name, _outcome(old.get(name)), _outcome(new.get(name)), new[name].full_summary if name in new else "")
        for name in dict.fromkeys((*old, *new))
        if _blocks(old.get(name)) != _blocks(new.get(name))
    )


def _blocks(answer: Evidence | None) -> bool:
    return answer is not None and answer.severity is Severity.BLOCKING and answer.outcome not in LETS_THROUGH


def _outcome(answer: Evidence | None) -> str:
    return answer.outcome.value if answer is not None else "not required"


def _held_answer(requirement: Requirement, decision: Decision, history: Sequence[Evidence]) -> Evidence | None:
    """The newest recorded answer to a check that held at the decision, for its version, environment and target."""
    wanted = {"version": decision.digest, "environment": decision.environment, "target": decision.target}
    for answer in reversed(history):
        fits = all(answer.binding[name] == wanted[name] for name in wanted.keys() & answer.binding.keys())
        if answer.check == requirement.check and fits and not expired(answer, decision.at):
            return answer
    return None


def _counted_answers(answer: Evidence, history: Sequence[Evidence]) -> list[Evidence]:
    """The answers to count passes in: as many as the decision says that it counted, else those on record."""
    original = unruled(answer)
    passes = answer.ruling.passes if answer.ruling else 0
    return [original] * passes or [
        recorded for recorded in history if (recorded.check, recorded.binding) == (original.check, original.binding)
    ]


def _reevaluated(answer: Evidence, requirement: Requirement) -> Evidence:
    """The answer as it would have been with the parameters of a requirement."""
    definition = CHECKS[requirement.check]
    wanted = parameters_digest(definition, requirement)
    if answer.binding.get("parameters", wanted) == wanted or answer.outcome is Outcome.NOT_APPLICABLE:
        return answer
    binding = {**answer.binding, "parameters": wanted}
    if requirement.check in AGAIN and answer.outcome is not Outcome.INCONCLUSIVE:
        try:
            limits = definition.parameters.model_validate(requirement.params)
            outcome = AGAIN[requirement.check](answer.measured, limits)
        except (KeyError, TypeError):  # another release measured something else, or nothing
            pass
        else:
            return replace(answer, outcome=outcome, binding=binding)
    return replace(answer, outcome=Outcome.INCONCLUSIVE, summary=UNTOLD, binding=binding, awaiting=())
