from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from prefect_stagegate.clock import stamp
from prefect_stagegate.errors import MissingExtra, SourceUnavailable
from prefect_stagegate.gate import CHECKS, CheckContext, CheckResult, check, known_checks
from prefect_stagegate.gate.base import NoParameters, Parameters
from prefect_stagegate.gate.evidence_rules import run_check, why_stale
from prefect_stagegate.gate.registry import _catalogue
from prefect_stagegate.model import FailedObject, Finding, Outcome, Scope, Severity, Validation
from prefect_stagegate.spec import Requirement
from prefect_stagegate.testing.contexts import ENVIRONMENT, NOW, OTHER_DIGEST, VOLUME, a_spec, check_context


class FewFiles(Parameters):
    files: int = 1


@pytest.fixture
def registry() -> Iterator[None]:
    """Whatever the test registers is forgotten again."""
    before = dict(_catalogue.complete())
    yield
    _catalogue.known.clear()
    _catalogue.known.update(before)


def required(name: str, **params: Any) -> Requirement:
    return Requirement(name, Severity.BLOCKING, params)


@pytest.mark.parametrize("name", CHECKS)
def test_check_has_a_description_and_defaults(name: str) -> None:
    assert CHECKS[name].doc.strip().endswith((".", ")"))
    known_checks()[name].parameters()


@pytest.mark.usefixtures("registry")
def test_new_check_is_one_function() -> None:
    @check("few_files", owner="data", scope=Scope.NODE, ttl=timedelta(minutes=5))
    def few_files(context: CheckContext, parameters: FewFiles) -> CheckResult:
        return CheckResult(Outcome.PASS if context.files <= parameters.files else Outcome.FAIL, "counted")

    evidence = run_check(CHECKS["few_files"], required("few_files", files=2), check_context())
    assert (evidence.outcome, evidence.owner, evidence.scope) == (Outcome.PASS, "data", Scope.NODE)
    assert evidence.at == stamp(NOW)
    assert evidence.expires == stamp(NOW + timedelta(minutes=5))


@pytest.mark.usefixtures("registry")
def test_name_that_is_taken_is_refused() -> None:
    def mine(context: CheckContext, parameters: NoParameters) -> CheckResult:
        return CheckResult(Outcome.PASS, "mine")

    with pytest.raises(ValueError, match="already a check named 'schema'"):
        check("schema", owner="data")(mine)
    assert CHECKS["schema"].ask is not mine


def test_check_without_a_parameter_model_is_refused() -> None:
    def bare(context: CheckContext, parameters: Any) -> CheckResult:
        return CheckResult(Outcome.PASS, "bare")

    with pytest.raises(TypeError, match="bare must annotate"):
        check("bare", owner="data")(bare)
    assert "bare" not in CHECKS


def probe(error: BaseException) -> CheckContext:
    def fails() -> object:
        raise error

    return check_context(cache_volume=fails)


def test_failed_probe_is_inconclusive_with_its_reason_and_hint() -> None:
    error = SourceUnavailable("nobody answers", hint="Start the server.")
    evidence = run_check(CHECKS["space"], required("space"), probe(error))
    assert evidence.outcome is Outcome.INCONCLUSIVE
    assert "nobody answers" in evidence.summary
    assert evidence.findings[0].fix == "Start the server."


def test_library_that_a_node_lacks_is_no_fault_of_data() -> None:
    def lacks_library() -> Validation:
        raise MissingExtra("The library for the probe image is not installed", hint="Install it.")

    answer = run_check(CHECKS["schema"], required("schema"), check_context(validation_of=lacks_library))
    assert (answer.outcome, answer.owner) == (Outcome.INCONCLUSIVE, "infra")


def test_bug_in_a_check_is_inconclusive_and_no_crash() -> None:
    evidence = run_check(CHECKS["space"], required("space"), probe(ZeroDivisionError("oops")))
    assert evidence.outcome is Outcome.INCONCLUSIVE
    assert "ZeroDivisionError: oops" in evidence.summary


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_whoever_stops_the_process_is_obeyed(stop: type[BaseException]) -> None:
    with pytest.raises(stop):
        run_check(CHECKS["space"], required("space"), probe(stop()))


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("figure", [float("nan"), NOW, object(), "\udc80"])
def test_figures_that_can_not_be_recorded_are_no_pass(figure: object) -> None:
    @check("odd", owner="data")
    def odd(context: CheckContext, parameters: NoParameters) -> CheckResult:
        return CheckResult(Outcome.PASS, "fine", measured={"figure": figure})

    assert run_check(CHECKS["odd"], required("odd"), check_context()).outcome is Outcome.INCONCLUSIVE


RESULT: Any = CheckResult
FINDING: Any = Finding


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (lambda: RESULT(Outcome.PASS, 7), "an Outcome and a str"),
        (lambda: RESULT(True, "fine"), "an Outcome and a str"),
        (lambda: RESULT("passed", "fine"), "an Outcome and a str"),
        (lambda: None, "'NoneType' object has no attribute"),
        (lambda: RESULT(Outcome.PASS, "fine", ("a.csv",)), "AttributeError"),
        (lambda: RESULT(Outcome.PASS, "fine", (FINDING("a", "b", 7),)), "AttributeError"),
        (lambda: RESULT(Outcome.PASS, "fine", until=NOW.replace(tzinfo=None)), "TypeError"),
        (lambda: RESULT(Outcome.PASS, "fine", awaiting=(7,)), "awaiting.0: Input should be a valid string"),
        (lambda: RESULT(Outcome.PASS, "fine", owner=7), "owner: Input should be a valid string"),
    ],
)
def test_answer_of_a_wrong_type_is_inconclusive(answer: Callable[[], CheckResult], problem: str) -> None:
    @check("odd", owner="data", ttl=timedelta(hours=1))
    def odd(context: CheckContext, parameters: NoParameters) -> CheckResult:
        return answer()

    evidence = run_check(CHECKS["odd"], required("odd"), check_context())
    assert (evidence.outcome, evidence.findings[0].subject) == (Outcome.INCONCLUSIVE, "odd")
    assert problem in evidence.summary


@pytest.mark.usefixtures("registry")
def test_name_that_is_not_unicode_is_written_out() -> None:
    @check("odd", owner="data")
    def odd(context: CheckContext, parameters: NoParameters) -> CheckResult:
        return CheckResult(Outcome.FAIL, "a\udc80", (Finding("b\udc80", "c\udc80", "d\udc80"),))

    evidence = run_check(CHECKS["odd"], required("odd"), check_context())
    assert evidence.summary == r"a\udc80"
    assert evidence.findings == (Finding(r"b\udc80", r"c\udc80", r"d\udc80"),)


CHANGES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "version": {"digest": OTHER_DIGEST},
    "node": {"node": "node-2"},
    "environment": {"environment": replace(ENVIRONMENT, image="sha256:" + "0" * 64)},
    "contract": {"spec": a_spec(contract={"tables": {"flights": {"files": "flights/*.csv"}}})},
    "sources": {"spec": a_spec(sources=[{"url": "s3://lake/other/"}])},
    "license": {"spec": a_spec(license="MIT")},
    "failed": {"failed_objects": lambda: (FailedObject("a", "s3://lake/", "AccessDenied", "no"),)},
    "rotten": {"rotten_blobs": lambda: ("blob-1",)},
    "time": {"now": NOW + timedelta(minutes=5)},
}
ENDS = {
    "schema": {"version", "contract"},
    "coverage": {"version", "contract", "failed"},
    "space": {"version", "node", "time"},
    "cache_integrity": {"version", "node", "rotten"},
    "read_probe": {"version", "node", "environment", "sources"},
    "license": {"version", "license"},
    "runbook": {"version"},
}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("change", CHANGES)
def test_change_ends_only_the_evidence_that_depends_on_it(name: str, change: str) -> None:
    definition, requirement = CHECKS[name], required(name)
    evidence = replace(run_check(definition, requirement, check_context()), outcome=Outcome.PASS)
    ended = why_stale(evidence, definition, requirement, check_context(**CHANGES[change]))
    assert bool(ended) == (change in ENDS[name])


def test_evidence_ends_with_new_parameters_or_check_version() -> None:
    definition = CHECKS["space"]
    evidence = run_check(definition, required("space"), check_context())
    assert not why_stale(evidence, definition, required("space", warn=0.8), check_context())  # the default, spelled out
    assert why_stale(evidence, definition, required("space", warn=0.7), check_context()) == "another parameters"
    newer = replace(definition, version=2)
    assert why_stale(evidence, newer, required("space"), check_context()) == "another check version"


def test_inconclusive_evidence_is_never_used_again() -> None:
    definition = CHECKS["space"]
    evidence = run_check(definition, required("space"), check_context(cache_volume=replace(VOLUME, total=0)))
    assert evidence.outcome is Outcome.INCONCLUSIVE
    assert why_stale(evidence, definition, required("space"), check_context())


def test_failure_that_can_end_by_itself_is_checked_again() -> None:
    definition = CHECKS["space"]
    evidence = run_check(definition, required("space"), check_context(cache_volume=replace(VOLUME, free=1)))
    assert evidence.outcome is Outcome.FAIL
    assert "may be repaired by now" in why_stale(evidence, definition, required("space"), check_context())
