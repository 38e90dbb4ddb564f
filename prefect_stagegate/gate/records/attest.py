"""Write a decision as an attestation, an in-toto Statement v1, and read it back.

    _type          https://in-toto.io/Statement/v1
    subject        [{name: the dataset, digest: {sha256: the version's digest}}]
    predicateType  https://in-toto.io/attestation/test-result/v0.1
    predicate
      result         PASSED | WARNED | FAILED: anything but an acceptance is FAILED
      configuration  [{name: gate/TARGET, digest: {sha256: the gate's digest}},
                  {name: policy, digest: {sha256: the adopted policy's digest}}]
      passedTests, warnedTests, failedTests     checks by name; inconclusive and waiting ones are among the failed,
                                                those that did not apply in none
      stagegate      our extension: format, verifier, the decision with every check's evidence, the environment that
                     it was made in, the request and its answers

Why test-result rather than SLSA's verification summary: both give a verdict on a subject under a policy, but only this
one names the single checks, and dataset versions have no SLSA level. A reader that ignores the extension still sees the
subject, the policy and the result. `predicates` writes each half by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter, ValidationError

from prefect_stagegate.environment import Environment
from prefect_stagegate.errors import CorruptRecord
from prefect_stagegate.model import Approval, ApprovalRequest, Decision, Evidence, Outcome
from prefect_stagegate.model.canonical import digest_of

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://in-toto.io/attestation/test-result/v0.1"
FORMAT = 3
"""The version of the `stagegate` extension that this release writes and reads."""
_TESTS = {
    Outcome.PASS: "passedTests",
    Outcome.WARN: "warnedTests",
    Outcome.WAIVED: "warnedTests",
    Outcome.FAIL: "failedTests",
    Outcome.INCONCLUSIVE: "failedTests",
}


@dataclass(frozen=True, slots=True)
class AttestedDecision:
    """A decision with all that it rests on: the content of the `stagegate` extension."""

    format: int
    verifier: Mapping[str, str]
    """Name and version of the software that decided."""
    decision: Decision
    environment: Environment
    request: ApprovalRequest | None
    approvals: tuple[Approval, ...]


@cache
def _verifier() -> Mapping[str, str]:
    return {"name": "prefect-stagegate", "version": version("prefect-stagegate")}  # reads files


@cache
def _adapter(kind: Any = AttestedDecision) -> TypeAdapter[Any]:
    return TypeAdapter(kind)  # late: it takes as long as a dozen modules, and staging attests nothing


def attest(
    decision: Decision,
    environment: Environment,
    request: ApprovalRequest | None = None,
    approvals: Sequence[Approval] = (),
) -> dict[str, Any]:
    """Write a decision as a Statement of JSON values."""
    attested = AttestedDecision(FORMAT, _verifier(), decision, environment, request, tuple(approvals))
    return _statement(decision, _adapter().dump_python(attested, mode="json"))


def _statement(decision: Decision, extension: object) -> dict[str, Any]:
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": decision.dataset, "digest": {"sha256": _hex(decision.digest)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "result": _result(decision),
            "configuration": [
                {"name": name, "digest": {"sha256": _hex(digest)}}
                for name, digest in ((f"gate/{decision.target}", decision.policy), ("policy", decision.adopted))
            ],
            **_tests(decision.checks),
            "stagegate": extension,
        },
    }


def statement_digest(statement: Mapping[str, Any]) -> str:
    """`sha256:<hex>` of a Statement, over its JSON with sorted keys and without spaces."""
    return digest_of(statement)


def decision_of(statement: Mapping[str, Any]) -> Decision:
    """The decision that a Statement holds, without a look at its environment, which may be given by its digest.

    Raises:
        CorruptRecord: It isn't one of ours, or its other parts contradict each other.
    """
    with _damage_told():
        extension = statement["predicate"]["stagegate"]
        _require_format(extension)
        decision: Decision = _adapter(Decision).validate_python(extension["decision"])
        _require_agreement(statement, decision)
    return decision


def approvals_of(statement: Mapping[str, Any]) -> tuple[Approval, ...]:
    """The answers that a Statement of `decision_of` holds.

    Raises:
        CorruptRecord: They are none.
    """
    with _damage_told():
        approvals: tuple[Approval, ...] = _adapter(tuple[Approval, ...]).validate_python(
            statement["predicate"]["stagegate"]["approvals"]
        )
    return approvals


def read_statement(statement: Mapping[str, Any]) -> AttestedDecision:
    """Read a whole Statement, and check that its parts agree.

    Raises:
        CorruptRecord: It isn't one of ours, or its parts contradict each other.
    """
    with _damage_told():
        attested = read_extension(statement["predicate"]["stagegate"])
    _require_agreement(statement, attested.decision)
    # Computed again: an environment that was changed afterwards must not keep its fingerprint.
    if attested.environment.fingerprint != attested.decision.environment:
        raise _corrupt("its environment does not match the decision's fingerprint")
    return attested


def read_extension(extension: Any) -> AttestedDecision:
    """Read the `stagegate` extension of a Statement.

    Raises:
        CorruptRecord: It isn't one of ours, or of another format.
    """
    with _damage_told():
        _require_format(extension)
        attested: AttestedDecision = _adapter().validate_python(extension)
    return attested


def _require_format(extension: Any) -> None:
    """Raise when an extension is of another format, whose fields may have other meanings."""
    if extension["format"] != FORMAT:
        raise _corrupt(f"its format is {extension['format']!r}, and this release reads {FORMAT}")


@contextmanager
def _damage_told() -> Iterator[None]:
    """Raise `CorruptRecord` for a field that is absent, or holds something else."""
    try:
        yield
    except (KeyError, TypeError) as error:
        raise _corrupt(f"it has no field {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _corrupt(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _require_agreement(statement: Mapping[str, Any], decision: Decision) -> None:
    """Raise when the parts that other tools read (subject, result, policy) differ from the decision."""
    rewritten = _statement(decision, statement["predicate"]["stagegate"])
    for part, expected in ((statement, rewritten), (statement["predicate"], rewritten["predicate"])):
        for name in expected.keys() - {"predicate"}:
            if part.get(name) != expected[name]:
                raise _corrupt(f"its {name} does not match the decision")


def _result(decision: Decision) -> str:
    if not decision.accepted:
        return "FAILED"
    clean = all(answer.outcome in (Outcome.PASS, Outcome.NOT_APPLICABLE) for answer in decision.checks)
    return "PASSED" if clean else "WARNED"


def _tests(checks: Sequence[Evidence]) -> dict[str, list[str]]:
    tests: dict[str, list[str]] = {"passedTests": [], "warnedTests": [], "failedTests": []}
    for answer in checks:
        if answer.outcome in _TESTS:
            tests[_TESTS[answer.outcome]].append(answer.check)
    return tests


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _corrupt(reason: str) -> CorruptRecord:
    return CorruptRecord(f"Invalid attestation: {reason}", hint="Run `stagegate check` again; it writes a new one.")
