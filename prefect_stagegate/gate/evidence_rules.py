"""Run one check and turn its result into evidence, bound to everything that the result depends on."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from pydantic import BaseModel, TypeAdapter, ValidationError

from prefect_stagegate import clock
from prefect_stagegate.catalog.records import encode
from prefect_stagegate.environment import UNKNOWN
from prefect_stagegate.errors import Cancelled, MissingExtra, StagegateError, WorkerCrashed
from prefect_stagegate.gate.base import CheckResult, one_finding
from prefect_stagegate.gate.check_context import CheckContext
from prefect_stagegate.gate.registry import Check
from prefect_stagegate.model import Evidence, EvidenceRevocation, Outcome
from prefect_stagegate.model.canonical import canonical, digest_of
from prefect_stagegate.redaction import redact
from prefect_stagegate.spec import Requirement

_EVIDENCE = TypeAdapter(Evidence)
log = logging.getLogger(__name__)

CLOCKS_DIFFER = timedelta(minutes=1)
"""How far ahead another node's clock may be."""


def run_check(definition: Check, requirement: Requirement, context: CheckContext) -> Evidence:
    """Run a check and return its evidence. An error of the check makes it inconclusive, with the error as the reason.

    Raises:
        Cancelled: The run was stopped.
    """
    began = time.perf_counter()
    try:
        answer = definition.ask(context, _parameters(definition, requirement))
        _require_texts(definition, context)
        return _evidence(definition, requirement, context, answer, began)
    # A stopped run has no answer: as an inconclusive one, it would be recorded as evidence.
    except Cancelled:
        raise
    except StagegateError as error:
        # One subject for checks that share the failed work, so that reports list the error once.
        subject, summary = definition.shared or definition.name, f"no result: {error.message}"
        answer = one_finding(Outcome.INCONCLUSIVE, subject, error.description, error.hint, summary=summary)
        # A crash of what evaluates the contract, or a library that the node lacks, is no defect of the data.
        answer = replace(answer, owner="infra") if isinstance(error, (WorkerCrashed, MissingExtra)) else answer
    except Exception as error:  # a bug in one check must not keep the others from answering
        log.debug("The check %r raised an error", definition.name, exc_info=True)
        # Only a StagegateError redacts its own text; the text of any other may hold a secret.
        problem = f"the check raised an error: {redact(f'{type(error).__name__}: {error}')}"
        fix = "Report it with the output of --debug."
        answer = one_finding(Outcome.INCONCLUSIVE, definition.name, problem, fix)
    return _evidence(definition, requirement, context, answer, began)


def _evidence(
    definition: Check, requirement: Requirement, context: CheckContext, answer: CheckResult, began: float
) -> Evidence:
    """The evidence of an answer, as it is read back.

    Raises:
        TypeError, ValueError: It can't be recorded, or nobody could read it.
    """
    # Shared work tells its own duration: this check may have waited for it, or met it done.
    seconds = time.perf_counter() - began if answer.seconds is None else answer.seconds
    canonical(answer.measured)
    evidence = Evidence(
        check=definition.name,
        outcome=answer.outcome,
        summary=_unicode(answer.summary),
        owner=answer.owner or definition.owner,
        severity=requirement.severity,
        scope=definition.scope,
        findings=tuple(
            replace(
                finding, subject=_unicode(finding.subject), problem=_unicode(finding.problem), fix=_unicode(finding.fix)
            )
            for finding in answer.findings
        ),
        measured=answer.measured,
        binding=binding(definition, requirement, context),
        at=clock.stamp(context.now),
        expires=_expires(definition.ttl, answer, context),
        awaiting=answer.awaiting,
        seconds=round(seconds, 3),
    )
    try:
        return _EVIDENCE.validate_json(encode(evidence))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise TypeError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _require_texts(definition: Check, context: CheckContext) -> None:
    for name, each in definition.bindings.items():
        if not isinstance(value := each.value(context), str | None):
            raise TypeError(f"the binding {name!r} must be a str or None, not {value!r}")


def binding(definition: Check, requirement: Requirement, context: CheckContext) -> dict[str, str]:
    """The values of everything that a check's answer depends on, by name."""
    values: dict[str, object] = {name: each.value(context) for name, each in definition.bindings.items()}
    return {name: _text(value) for name, value in values.items() if value is not None} | {
        "check_version": str(definition.version),
        "parameters": parameters_digest(definition, requirement),
    }


def parameters_digest(definition: Check, requirement: Requirement) -> str:
    """`sha256:<hex>` of a check's parameters in a gate, with the defaults filled in."""
    return digest_of(_parameters(definition, requirement).model_dump(mode="json"))


def why_stale(evidence: Evidence, definition: Check, requirement: Requirement, context: CheckContext) -> str:
    """Why the evidence no longer holds; empty when it does."""
    # A wrong date comes before the outcome: such evidence says nothing, not even that the check failed.
    if ended := revoked(evidence, context.revocations):
        return str(ended)
    if is_ahead(evidence, context.now):
        return f"it is dated {evidence.at}, so a clock is wrong"  # its expiry is as wrong as its date
    # An inconclusive answer is never used again, so every run tries to get a better one.
    if evidence.outcome is Outcome.INCONCLUSIVE:
        return "it was inconclusive"
    if evidence.outcome is Outcome.FAIL and evidence.expires:
        return "it failed, and may be repaired by now"  # a repair must not wait for the expiry
    if changed := changed_bindings(evidence, definition, requirement, context):
        return f"another {', '.join(changed).replace('_', ' ')}"
    return f"it expired at {evidence.expires[:19]}Z" if expired(evidence, clock.stamp(context.now)) else ""


def changed_bindings(
    evidence: Evidence, definition: Check, requirement: Requirement, context: CheckContext
) -> list[str]:
    """The names, sorted, of what an answer depends on that has another value now, has one no more, or can't be read."""
    wanted, recorded = binding(definition, requirement, context), evidence.binding
    names = wanted.keys() | recorded
    return sorted(name for name in names if wanted.get(name) != recorded.get(name) or wanted[name] == UNKNOWN)


def is_ahead(evidence: Evidence, now: datetime) -> bool:
    """Whether evidence is dated later than clocks may differ. Such evidence never counts, not even a failure."""
    return evidence.at > clock.stamp(now + CLOCKS_DIFFER)


def counting(evidence: Iterable[Evidence], context: CheckContext) -> list[Evidence]:
    """The evidence that can count: not revoked, and not dated ahead."""
    return [answer for answer in unrevoked(evidence, context.revocations) if not is_ahead(answer, context.now)]


def superseded(evidence: Evidence, record: Sequence[Evidence]) -> str:
    """Why a later answer with the same binding replaces this one: it failed or was inconclusive. Else empty.

    An answer is later when it was recorded later, or dated later: a check that ran shorter may be recorded first.

    `record` is all recorded evidence about the version, the oldest first.
    """
    recorded_later = False
    for other in record:
        later = recorded_later or other.at > evidence.at
        recorded_later = recorded_later or other is evidence  # from the next one on
        same = (other.check, other.binding) == (evidence.check, evidence.binding)
        if same and later and other.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE):
            return f"a later result, from {other.at}, was {other.outcome}"
    return ""


def expired(evidence: Evidence, at: str) -> bool:
    """Whether the evidence has expired at a moment, written as `clock.stamp` writes it."""
    return bool(evidence.expires) and evidence.expires <= at


def _text(value: object) -> str:
    return _unicode(value) if isinstance(value, str) else UNKNOWN


def _unicode(text: str) -> str:
    """Escape what isn't UTF-8, as in some file names: a record could not hold it."""
    return text.encode(errors="backslashreplace").decode()


def _parameters(definition: Check, requirement: Requirement) -> BaseModel:
    return definition.parameters.model_validate(requirement.params)


def _expires(ttl: timedelta | None, answer: CheckResult, context: CheckContext) -> str:
    """The earlier of the two ends that the check's `ttl` and the answer's `until` set; empty without either."""
    ends = [context.now + ttl] if ttl else []
    ends += [answer.until] if answer.until else []
    return clock.stamp(min(ends)) if ends else ""


def revoked(evidence: Evidence, revocations: Iterable[EvidenceRevocation]) -> EvidenceRevocation | None:
    """The revocation that ended the evidence; None while it counts.

    A revocation ends evidence that was asked for before it, also by a check that was still running. It also ends
    evidence that was on record then with a later time, from a clock that is ahead.
    """
    if not evidence.at:
        return None  # a placeholder for a check that never ran
    target = evidence.binding.get("target", "")
    return next(
        (
            revocation
            for revocation in revocations
            if revocation.check == evidence.check
            and revocation.target in ("", target)
            and (evidence.at <= revocation.at or evidence.at in revocation.ahead)
        ),
        None,
    )


def unrevoked(evidence: Iterable[Evidence], revocations: Sequence[EvidenceRevocation]) -> list[Evidence]:
    """The evidence that nobody revoked, in the same order."""
    return [answer for answer in evidence if not revoked(answer, revocations)]
