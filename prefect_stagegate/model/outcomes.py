"""What checks, gates and validations give, and what a promotion did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, NoReturn

from prefect_stagegate.model.signoff import (
    Waiver,
)


class Verdict:
    """A result that says by a field whether it passed. As any object it would be true whatever the field says."""

    __slots__ = ()
    _asks: ClassVar[str]

    def __init_subclass__(cls, asks: str = "") -> None:
        # A dataclass with slots is made a second time, then without the argument.
        cls._asks = asks or cls._asks

    def __bool__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} is neither true nor false: look at its `.{self._asks}`")


class Outcome(StrEnum):
    """The outcome of a check. Only `PASS`, `WARN`, `WAIVED` and `NOT_APPLICABLE` let a gate accept."""

    PASS = "pass"  # noqa: S105 - an outcome
    WARN = "warn"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    WAIVED = "waived"
    NOT_APPLICABLE = "not-applicable"


class Severity(StrEnum):
    """What an unfavourable outcome does: the gate refuses, reports it, or only notes it."""

    BLOCKING = "blocking"
    WARNING = "warning"
    INFO = "info"


class Scope(StrEnum):
    """What evidence is about; a change of that can end the evidence."""

    VERSION = "version"
    ENVIRONMENT = "environment"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect, described precisely enough to repair it."""

    subject: str
    """The file, table, column, source or setting concerned."""
    problem: str
    """What is wrong with it, with the figures."""
    fix: str = ""
    """What to do, as a command where there is one."""
    outcome: Outcome = Outcome.FAIL


@dataclass(frozen=True, slots=True)
class Evidence(Verdict, asks="outcome"):
    """The recorded result of one check, bound to the facts that it depends on."""

    check: str
    outcome: Outcome
    summary: str
    """One line for people, with the figure that decided."""
    owner: str
    """`data`, `ai`, `infra` or `governance`."""
    severity: Severity = Severity.BLOCKING
    scope: Scope = Scope.VERSION
    findings: tuple[Finding, ...] = ()
    measured: Mapping[str, Any] = field(default_factory=dict)
    """Figures behind the outcome, JSON values only."""
    binding: Mapping[str, str] = field(default_factory=dict)
    """The facts that the result depends on: `version`, `policy`, `environment`, `target`, `node`, `check_version`."""
    at: str = ""
    """When it was gathered."""
    expires: str = ""
    """When it expires; empty when it is valid as long as its binding."""
    awaiting: tuple[str, ...] = ()
    """Who must answer: groups of `owners`, or `anybody`. Empty unless only a person can answer."""
    seconds: float | None = field(default=None, compare=False)
    """How long the check took; None where it was not measured."""
    ruling: Ruling | None = None
    """Set only in a decision, where the gate did not take the check's result as it came."""
    signatures: tuple[Mapping[str, str], ...] = field(default=(), compare=False)
    """DSSE signatures of the node that gathered it, without their payload."""

    @property
    def full_summary(self) -> str:
        """The summary, followed by the gate's ruling if there is one."""
        return f"{self.summary}; {self.ruling}" if self.ruling else self.summary


@dataclass(frozen=True, slots=True)
class Ruling:
    """A gate's ruling on a result that it did not take as it came. Keeps the check's own result."""

    found: Outcome
    """The check's own outcome."""
    expires: str
    """When the check's own result expires."""
    waiver: Waiver | None = None
    """The waiver that lets a failure pass."""
    passes: int = 0
    """Passes in a row so far, where the gate wants more than one; else 0."""
    wanted: int = 0
    """Passes in a row that the gate wants."""

    def __str__(self) -> str:
        return str(self.waiver) if self.waiver else f"{self.passes} of {self.wanted} passes in a row"


class DecisionOutcome(StrEnum):
    """What a gate decided."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    INCONCLUSIVE = "inconclusive"
    """Nothing failed, but a check that must have a result has none."""
    WAITING = "waiting"
    """Only an approval is missing, and the request is recorded."""


@dataclass(frozen=True, slots=True)
class Decision(Verdict, asks="accepted"):
    """A gate's decision about one version under one policy."""

    dataset: str
    digest: str
    target: str
    outcome: DecisionOutcome
    checks: tuple[Evidence, ...]
    policy: str
    """`sha256:<hex>` of the gate's resolved policy with its contract."""
    environment: str
    """`sha256:<hex>` of the environment's fingerprint."""
    at: str
    expires: str = ""
    """When the first of its evidence expires; empty when none does."""
    requester: str = ""
    adopted: str = ""
    """`sha256:<hex>` of the dataset's adopted policy, which has the gate; empty for a trial, which never counts."""
    after: int = 0
    """The number of the target's last move at the time of the decision; 0 before the first."""

    @property
    def accepted(self) -> bool:
        """Whether the version may be promoted to the target."""
        return self.outcome is DecisionOutcome.ACCEPTED

    @property
    def asked_by(self) -> str:
        """Who asked, with how the name is known where the gate wants an approval: `ada (os-user)`."""
        asked = (evidence.measured.get("requester") for evidence in self.checks if evidence.check == "approval")
        known = next(filter(None, asked), None)
        return f"{known['name']} ({known['known_by']})" if known else self.requester

    @property
    def declined(self) -> str:
        """Who declined the version and why, if nothing else blocks it; else empty."""
        blocking = (Outcome.FAIL, Severity.BLOCKING)
        failed = [evidence for evidence in self.checks if (evidence.outcome, evidence.severity) == blocking]
        if [evidence.check for evidence in failed] != ["approval"]:
            return ""
        answers = failed[0].measured.get("answers", ())
        findings = (finding for finding in failed[0].findings if finding.outcome is Outcome.FAIL)
        reasons = "; ".join(f"{finding.subject} {finding.problem}" for finding in findings)
        return reasons if any(not answer["approved"] for answer in answers) else ""


@dataclass(frozen=True, slots=True)
class ExpectationResult(Verdict, asks="verdict"):
    """What one expectation of a table's suite found."""

    table: str
    expectation: str
    """The suite's own description, or the expectation's type and arguments."""
    column: str
    """The column or columns that it is about; empty when it is about the table."""
    severity: str
    """`critical`, `warning` or `info`."""
    verdict: str
    """`passed`, `failed`, or `errored` when it could not be evaluated."""
    observed: str = ""
    """The figure that decided; empty where rows are judged, and where none is known."""
    rows: int | None = None
    """Rows that were judged one by one; None where none are."""
    refused: int | None = None
    """Rows that it refuses; None where it judges none."""
    examples: tuple[str, ...] = ()
    """Different refused values, five at most; those of personal columns are masked."""
    seconds: float | None = None
    """How long its queries took; of a query for several expectations, its part."""

    @property
    def share(self) -> float | None:
        """Refused rows divided by judged rows, 0.0 to 1.0; None without judged rows."""
        return self.refused / self.rows if self.rows and self.refused is not None else None


@dataclass(frozen=True, slots=True)
class TableResult(Verdict, asks="passed"):
    """What the contract found about one table."""

    name: str
    files: int
    rows: int
    evaluated: int
    """Expectations that were evaluated."""
    failed: int
    passed: bool
    expectations: tuple[ExpectationResult, ...] = ()
    """All expectations of its suite, in the suite's order."""


@dataclass(frozen=True, slots=True)
class Validation(Verdict, asks="passed"):
    """What the contract found about one version."""

    dataset: str
    digest: str
    passed: bool
    tables: tuple[TableResult, ...]
    evidence: tuple[Evidence, ...]
    """Of the contract's checks: `schema`, `nonempty`, `expectations`, `coverage`."""
    seconds: float = 0.0
    """How long running the contract took, without bringing the version to this node."""
    is_trial: bool = False
    """Whether the contract is that of the caller's spec. Then nothing is recorded."""
    policy: str = ""
    """`sha256:<hex>` of the adopted policy that has the contract; empty for a trial, and where none was adopted."""


@dataclass(frozen=True, slots=True)
class Promotion(Verdict, asks="digest"):
    """A ref that was moved."""

    dataset: str
    ref: str
    digest: str
    previous: str
    """The digest that the ref named before; empty when it is new."""
