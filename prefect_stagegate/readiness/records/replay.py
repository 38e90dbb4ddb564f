"""Replaying: decide an old record again under another policy. Pure: nothing is asked, and no clock is read.

What was found out stands. A check whose parameters are other ones now is judged again by the figures that it measured,
where these tell (`AGAIN`), and is inconclusive where they don't. Waivers count as long as they would have counted then.
Replayed under the policy that it was made by, a record gives the same decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prefect_stagegate.model import Decision, Evidence, Outcome, Severity
from prefect_stagegate.readiness.gate import conclude
from prefect_stagegate.readiness.overrides import case_of, unruled
from prefect_stagegate.readiness.registry import CHECKS
from prefect_stagegate.readiness.renewal import LETS_THROUGH
from prefect_stagegate.readiness.run import expired, parameters_digest
from prefect_stagegate.spec import Gate, Requirement

UNTOLD = "it was asked with other parameters, and what it measured does not tell"


def _graded(*, passes: bool, warns: bool) -> Outcome:
    return Outcome.PASS if passes else Outcome.WARN if warns else Outcome.FAIL


AGAIN: Mapping[str, Callable[[Mapping[str, Any], Any], Outcome]] = {
    "freshness": lambda found, limits: _graded(
        passes=found["age_seconds"] < limits.warn.total_seconds(),
        warns=found["age_seconds"] < limits.fail.total_seconds(),
    ),
    "cache_fit": lambda found, limits: _graded(
        passes=found["ratio"] >= limits.warn, warns=found["ratio"] >= limits.fail
    ),
    "space": lambda found, limits: _graded(
        passes=found["used_share"] <= limits.warn, warns=found["used_share"] <= limits.fail
    ),
    "inodes": lambda found, limits: _graded(
        passes=found["used_share"] <= limits.warn, warns=found["used_share"] <= limits.fail
    ),
    "rollback": lambda found, limits: _graded(passes=found["age_seconds"] <= limits.warn.total_seconds(), warns=True),
    "soak": lambda found, limits: _graded(passes=found["stood_seconds"] >= limits.period.total_seconds(), warns=False),
}
"""Checks whose figures, as recorded, tell what they would have said with other limits."""


@dataclass(frozen=True, slots=True)
class Flip:
    """One check that stands otherwise under the other policy."""

    check: str
    before: str
    """Its outcome then; `not required` when the policy did not ask for it."""
    after: str
    why: str
    """What it says now, with what the gate makes of it."""


def replay(decision: Decision, gate: Gate, record: Iterable[Evidence] = ()) -> Decision:
    """What a gate would have decided, at the same moment, from the same evidence.

    Args:
        decision: The recorded decision.
        gate: The policy to decide by now.
        record: Other recorded evidence about the version, for checks that the decision did not need; the oldest first.
            What was found out after the decision is passed over.
    """
    then = [answer for answer in record if answer.at <= decision.at]
    known = {answer.check: answer for answer in decision.checks if answer.at}
    answers, rows = [], []
    for asked in gate.requirements:
        answer = known.get(asked.check) or _recorded(asked, decision, then)
        if answer is not None:
            answers.append(_again(unruled(answer), asked))
            rows += [_again(one, asked) for one in _row(answer, then)]
    waivers = [answer.ruling.waiver for answer in decision.checks if answer.ruling and answer.ruling.waiver]
    return conclude(case_of(decision), gate, answers, waivers=waivers, record=rows)


def flips(before: Decision, after: Decision) -> tuple[Flip, ...]:
    """The checks that made the difference between two decisions: blocking in one, and not in the other."""
    then, now = ({answer.check: answer for answer in decision.checks} for decision in (before, after))
    return tuple(
        Flip(name, _outcome(then.get(name)), _outcome(now.get(name)), now[name].full_summary if name in now else "")
        for name in dict.fromkeys((*then, *now))
        if _blocks(then.get(name)) != _blocks(now.get(name))
    )


def _blocks(answer: Evidence | None) -> bool:
    return answer is not None and answer.severity is Severity.BLOCKING and answer.outcome not in LETS_THROUGH


def _outcome(answer: Evidence | None) -> str:
    return answer.outcome.value if answer else "not required"


def _recorded(asked: Requirement, decision: Decision, then: Sequence[Evidence]) -> Evidence | None:
    """The newest answer to a check that the decision did not need, if it held in the decision's environment then."""
    wanted = {"version": decision.digest, "environment": decision.environment, "target": decision.target}
    for answer in reversed(then):
        fits = all(answer.binding[name] == wanted[name] for name in wanted.keys() & answer.binding.keys())
        if answer.check == asked.check and fits and not expired(answer, decision.at):
            return answer
    return None


def _row(answer: Evidence, then: Sequence[Evidence]) -> list[Evidence]:
    """The answers in which passes are counted: those on record, or as many as the decision says that it counted."""
    own = unruled(answer)
    counted = answer.ruling.passes if answer.ruling else 0
    return [own] * counted or [one for one in then if (one.check, one.binding) == (own.check, own.binding)]


def _again(answer: Evidence, asked: Requirement) -> Evidence:
    """The answer as it would have been under the parameters of a policy."""
    definition = CHECKS[asked.check]
    wanted = parameters_digest(definition, asked)
    if answer.binding.get("parameters", wanted) == wanted or answer.outcome is Outcome.NOT_APPLICABLE:
        return answer
    binding = {**answer.binding, "parameters": wanted}
    if asked.check in AGAIN and answer.outcome is not Outcome.INCONCLUSIVE:
        try:
            outcome = AGAIN[asked.check](answer.measured, definition.parameters.model_validate(asked.params))
        except (KeyError, TypeError):  # an answer of a release that measured something else, or nothing at all
            pass
        else:
            return replace(answer, outcome=outcome, binding=binding)
    return replace(answer, outcome=Outcome.INCONCLUSIVE, summary=UNTOLD, binding=binding, awaiting=())
