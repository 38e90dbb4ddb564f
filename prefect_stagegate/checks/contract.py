"""Data.

Checks on the data: what the contract found, how old it is, and whether it is the version that was judged before.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

from pydantic import Field

from prefect_stagegate.catalog.version_records import read_failed
from prefect_stagegate.gate.accepted import Accepted, accepted_below, reference
from prefect_stagegate.gate.base import Ceilings, CheckResult, NoParameters, one_finding, worst_of
from prefect_stagegate.gate.check_context import Binding, CheckContext, Fact, origins
from prefect_stagegate.gate.registry import Check, Renewal
from prefect_stagegate.jobs.gating.table_facts import TABLE, table_columns, table_time
from prefect_stagegate.jobs.gating.validate import validation_of
from prefect_stagegate.model import FailedObject, Finding, Outcome
from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.spec import Duration
from prefect_stagegate.spec.parameters import PREVIOUS_ROWS, uses
from prefect_stagegate.units import age_text, count_text, digest_text, listed, time_text

COLUMNS = "table_columns"
"""What `schema` measures: the columns of the tables that declare none, with their types."""
NAMED = 20
"""Objects that could not be staged, of which `coverage` names so many; the others are counted."""
REPAIR = "Repair it at its source, then run `stagegate stage` again."
ALIKE = 0.7
"""How similar two names must be, 0 to 1, to suggest that a column was renamed."""
DECLARE = "If the change is intended, declare the table's `columns:` in the contract."
SKEW = timedelta(minutes=5)
"""How far two clocks may disagree before a time in the future is an error."""


def undeclared_tables(context: CheckContext) -> tuple[str, ...]:
    """The tables whose columns the contract does not declare. They are compared with the accepted version's."""
    return tuple(name for name, table in context.spec.contract.tables.items() if not table.columns)


@Fact
def failed_objects(context: CheckContext) -> tuple[FailedObject, ...]:
    """Objects that could not be staged when the version was made last, and that it lacks."""
    return read_failed(context.workspace.catalog, context.dataset, context.digest)


def _reference_digest(context: CheckContext) -> str:
    accepted = reference(context)
    return accepted.digest if accepted else "none"


REFERENCE = Binding(
    "reference",
    # Declared columns are compared with the contract, so only a table without any depends on the reference.
    lambda context: _reference_digest(context) if undeclared_tables(context) else "none",
)
PREVIOUS = Binding(
    "previous",
    lambda context: _reference_digest(context) if uses(context.spec.contract.tables, PREVIOUS_ROWS) else None,
)
"""The version whose rows the suites compare with; None where they compare with none."""
FAILED = Binding(
    "failed",
    lambda context: (
        digest_of([asdict(failure) for failure in failed]) if (failed := failed_objects(context)) else "none"
    ),
)


@Check("schema", owner="data", version=2, binds=("contract", REFERENCE), shared="contract", fetches=True)
def schema(context: CheckContext, parameters: NoParameters) -> CheckResult:  # noqa: ARG001
    """Whether the tables have the columns and types that the contract promises.

    Equal passes, an added column warns, a missing or retyped one fails; a table without files is inconclusive. A table
    that declares no columns must have the same ones in all its files, and those of the target's version before.
    """
    answer, tables = _from_contract(context, "schema"), undeclared_tables(context)
    # The comparison can only make the answer worse, so a failed answer needs none.
    if not tables or answer.outcome not in (Outcome.PASS, Outcome.WARN):
        return answer
    now = table_columns(context, context.digest, tables)
    answer = replace(answer, measured={**answer.measured, COLUMNS: now})
    accepted = reference(context)
    return _compared(context, answer, accepted) if accepted else answer


def _compared(context: CheckContext, answer: CheckResult, accepted: Accepted) -> CheckResult:
    """Add to the answer how the columns of tables that declare none differ from the accepted version's."""
    now = answer.measured[COLUMNS]
    # The reference is only read again if its acceptance did not record the columns of all these tables.
    known = _recorded_columns(accepted)
    before = known if known.keys() >= now.keys() else table_columns(context, accepted.digest, tuple(now))
    label = f"{accepted.target}'s {digest_text(accepted.digest)}"
    measured = {**answer.measured, "reference": accepted.digest}
    findings = [finding for table in now for finding in _compare_columns(table, before[table], now[table], label)]
    worst = worst_of(findings)
    if worst is None:
        return replace(answer, summary=f"{answer.summary}, and as in {label}", measured=measured)
    summary = f"{worst.subject}: {worst.problem}"
    findings = [*answer.findings, *findings]
    return replace(answer, outcome=worst.outcome, summary=summary, findings=tuple(findings), measured=measured)


def _compare_columns(table: str, before: Mapping[str, str], now: Mapping[str, str], label: str) -> Iterator[Finding]:
    """Report changed columns: a missing or retyped one fails, an added one warns. A table that is new has no changes.

    `before` and `now` have the type of each column; `label` is what texts call the reference version.
    """
    subject = f"table {table}"
    added = [name for name in now if name not in before] if before else []
    for name, kind in before.items():
        if name not in now:
            near = difflib.get_close_matches(name, added, n=1, cutoff=ALIKE)
            added = [column for column in added if column not in near]
            renamed = f"; {near[0]} is new: renamed?" if near else ""
            problem = f"column {name} ({kind}) is missing; {label} has it{renamed}"
            yield Finding(subject, problem, f"Restore {name} at its source. {DECLARE}")
        elif now[name] != kind:
            problem = f"column {name} is {now[name]}; in {label} it is {kind}"
            yield Finding(subject, problem, f"Write {name} as {kind} at its source. {DECLARE}")
    for name in added:
        problem = f"column {name} ({now[name]}) is new: {label} lacks it"
        yield Finding(subject, problem, "No action is needed if the change is intended.", Outcome.WARN)


def _recorded_columns(accepted: Accepted) -> Mapping[str, Mapping[str, str]]:
    """The columns in the evidence of the reference's acceptance; empty when its gate had no `schema`."""
    checks = accepted.decision.checks if accepted.decision is not None else ()
    columns = next((answer.measured.get(COLUMNS) for answer in checks if answer.check == "schema"), None)
    return columns if isinstance(columns, Mapping) else {}


@Check("nonempty", owner="data", binds=("contract",), shared="contract", fetches=True)
def nonempty(context: CheckContext, parameters: NoParameters) -> CheckResult:  # noqa: ARG001
    """Whether there is anything to judge: at least one file, one row a table and one expectation a suite."""
    if context.files < 1 or context.bytes < 1:
        problem = f"the version has {count_text(context.files, 'file')} with {count_text(context.bytes, 'byte')}"
        fix = f"Look at `stagegate show {context.address} --rows`, and at `include` and `exclude` in the spec."
        return one_finding(Outcome.FAIL, "version", problem, fix)
    return _from_contract(context, "nonempty")


@Check("expectations", owner="data", version=2, binds=("contract", PREVIOUS), shared="contract", fetches=True)
def expectations(context: CheckContext, parameters: NoParameters) -> CheckResult:  # noqa: ARG001
    """What the contract's Great Expectations suites say.

    No failed expectation passes, failed warnings warn, a failed critical one fails; one that raised an error is
    inconclusive. One with a parameter that has no value, as `${previous.rows}` of a first version, is not applicable.
    """
    return _from_contract(context, "expectations")


@Check("coverage", owner="data", binds=("contract", FAILED), shared="contract", fetches=True)
def coverage(context: CheckContext, parameters: NoParameters) -> CheckResult:  # noqa: ARG001
    """Whether every file that the contract names was really read: all of them pass, one less fails.

    It warns of objects that `max_failed_objects` let be left out of the version.
    """
    answer, failed = _from_contract(context, "coverage"), failed_objects(context)
    if not failed:
        return answer
    findings = [
        Finding(failure.path, f"could not be staged: {failure.reason}", REPAIR, Outcome.WARN)
        for failure in failed[:NAMED]
    ]
    if len(failed) > NAMED:
        rest = f"{len(failed) - NAMED:,} more could not be staged"
        findings.append(Finding("…", rest, f"`stagegate show {context.address} --json` names all.", Outcome.WARN))
    outcome = Outcome.WARN if answer.outcome is Outcome.PASS else answer.outcome
    missing = f"{count_text(len(failed), 'object')} could not be staged"
    return replace(
        answer, outcome=outcome, summary=f"{answer.summary}; {missing}", findings=(*answer.findings, *findings)
    )


def _from_contract(context: CheckContext, name: str) -> CheckResult:
    validation = validation_of(context)
    # A verdict about another version must never count for this one.
    if validation.digest != context.digest:
        other = digest_text(validation.digest)
        return CheckResult(Outcome.INCONCLUSIVE, f"the validation is of another version, {other}")
    evidence = next((evidence for evidence in validation.evidence if evidence.check == name), None)
    if evidence is None:
        fix = "Name tables or files under `contract` in the spec, or take the check out of the gate."
        return one_finding(Outcome.INCONCLUSIVE, "contract", f"the contract declares nothing for {name} to check", fix)
    return CheckResult(
        evidence.outcome, evidence.summary, evidence.findings, evidence.measured, seconds=validation.seconds
    )


class Freshness(Ceilings):
    """12 and 24 hours suit data that is delivered daily."""

    warn: Duration = Field(default=timedelta(hours=12), description="The age from which on it warns.", examples=["12h"])
    fail: Duration = Field(default=timedelta(hours=24), description="The age from which on it fails.", examples=["24h"])


@Check("freshness", owner="data", binds=("contract",), renewal=Renewal.CHEAP)
def freshness(context: CheckContext, parameters: Freshness) -> CheckResult:
    """How old the newest data is.

    Younger than `warn` (12h) passes, younger than `fail` (24h) warns, older fails. The age is that of the newest value
    in the `time` column of each table that names one, and the oldest of these counts; without such a table, that of the
    newest object at its source.
    """
    newest = _newest_times(context)
    dated = {subject: at for subject, at in newest.items() if at is not None}
    missing = [subject for subject, at in newest.items() if at is None]
    # A table without a time makes the answer unknown, however fresh the others are.
    if missing or not dated:
        subjects = missing or ["source"]
        fix = "Name a table's `time` column in the contract, or use a source that reports when its objects changed."
        findings = tuple(Finding(subject, "it has no time", fix, Outcome.INCONCLUSIVE) for subject in subjects)
        return CheckResult(Outcome.INCONCLUSIVE, f"no time is known for {listed(subjects)}", findings)
    subject, at = min(dated.items(), key=lambda item: item[1])
    if at > context.now + SKEW:
        return CheckResult(Outcome.INCONCLUSIVE, f"{subject} is dated in the future: {at.isoformat()}")
    return _evaluate_age(context, parameters, dated, subject)


def _newest_times(context: CheckContext) -> dict[str, datetime | None]:
    """The newest time in each table that names a `time` column, else that of the newest object; None without one."""
    timed = [name for name, table in context.spec.contract.tables.items() if table.time]
    if timed:
        return {f"{TABLE}{name}": table_time(context, name) for name in timed}
    times = [origin.modified for origin in origins(context) if origin.modified is not None]
    return {"newest object": datetime.fromtimestamp(max(times), UTC) if times else None}


def _evaluate_age(context: CheckContext, parameters: Freshness, dated: dict[str, datetime], oldest: str) -> CheckResult:
    age = context.now - dated[oldest]
    measured = {name: at.isoformat() for name, at in dated.items()} | {"age_seconds": max(age.total_seconds(), 0.0)}
    summary = f"{oldest} is from {time_text(dated[oldest])}"
    # The answer ends when the data reaches the next limit: time alone changes it.
    if age < parameters.warn:
        return CheckResult(Outcome.PASS, summary, measured=measured, until=dated[oldest] + parameters.warn)
    outcome = Outcome.WARN if age < parameters.fail else Outcome.FAIL
    limit = parameters.warn if outcome is Outcome.WARN else parameters.fail
    fix = f"Request a new delivery and stage it, or change the limits of freshness in the gate {context.target}."
    problem = f"{time_text(dated[oldest])}, more than {age_text(limit)} before the check"
    until = dated[oldest] + parameters.fail if outcome is Outcome.WARN else None
    summary = f"{oldest} is from {problem}"
    return one_finding(outcome, oldest, f"it is from {problem}", fix, measured, summary=summary, until=until)


@Check("digest", owner="data", binds=("target", "below"), renewal=Renewal.CHEAP, waivable=False)
def digest(context: CheckContext, parameters: NoParameters) -> CheckResult:  # noqa: ARG001
    """Whether this is exactly the version that the gate below accepted; anything else fails.

    Not applicable to a gate that extends none.
    """
    extends, below = context.gate.extends, accepted_below(context)
    if extends is None:
        return CheckResult(Outcome.NOT_APPLICABLE, "this gate extends no other")
    measured = {"version": context.digest, "below": below.digest if below else None}
    if below and below.digest == context.digest:
        return CheckResult(Outcome.PASS, f"the version that {extends} accepted", measured=measured)
    problem = f"{extends} accepted {digest_text(below.digest)}" if below else f"{extends} has accepted no version yet"
    # The gate below may not have decided about it, and only an accepted version can be promoted.
    fix = f"stagegate check {context.address} --gate {extends} && stagegate promote {context.address} --to {extends}"
    difference = f"it is {digest_text(context.digest)}, but {problem}"
    return one_finding(Outcome.FAIL, "version", difference, fix, measured, summary=problem)
