from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from prefect_stagegate.checks.contract import (
    REFERENCE,
    Freshness,
    coverage,
    digest,
    expectations,
    freshness,
    nonempty,
    schema,
)
from prefect_stagegate.gate.accepted import Accepted
from prefect_stagegate.gate.base import CheckResult, NoParameters
from prefect_stagegate.model import Decision, DecisionOutcome, Evidence, Outcome
from prefect_stagegate.testing.contexts import (
    DIGEST,
    NOW,
    OTHER_DIGEST,
    a_spec,
    a_validation,
    an_origin,
    check_context,
)

NONE = NoParameters()
CONTRACT_CHECKS = {"schema": schema, "nonempty": nonempty, "expectations": expectations, "coverage": coverage}


@pytest.mark.parametrize("name", CONTRACT_CHECKS)
@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.WARN, Outcome.FAIL, Outcome.INCONCLUSIVE])
def test_contract_check_says_what_the_contract_found(name: str, outcome: Outcome) -> None:
    tables = {"flights": {"files": "flights/*.parquet", "columns": {"year": "int"}}}
    spec = a_spec(contract={"tables": tables})
    context = check_context(spec=spec, validation_of=lambda: a_validation(outcome=outcome))
    answer = CONTRACT_CHECKS[name](context, NONE)
    assert (answer.outcome, answer.summary, answer.measured) == (outcome, f"{name} looked", {"rows": 7})


@pytest.mark.parametrize("check", CONTRACT_CHECKS.values(), ids=CONTRACT_CHECKS)
def test_validation_of_another_version_proves_nothing(check: object) -> None:
    context = check_context(validation_of=lambda: a_validation(OTHER_DIGEST))
    assert check(context, NONE).outcome is Outcome.INCONCLUSIVE  # type: ignore[operator]


def test_contract_that_has_nothing_for_a_check_is_inconclusive() -> None:
    validation = a_validation()
    without = type(validation)(validation.dataset, DIGEST, True, (), ())
    answer = expectations(check_context(validation_of=lambda: without), NONE)
    assert answer.outcome is Outcome.INCONCLUSIVE
    assert "contract" in answer.findings[0].fix


@pytest.mark.parametrize(("files", "size"), [(0, 0), (2, 0)])
def test_version_without_files_or_bytes_is_empty(files: int, size: int) -> None:
    assert nonempty(check_context(files=files, bytes=size), NONE).outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("age", "outcome"),
    [
        (timedelta(0), Outcome.PASS),
        (timedelta(hours=12) - timedelta(seconds=1), Outcome.PASS),
        (timedelta(hours=12), Outcome.WARN),
        (timedelta(hours=24) - timedelta(seconds=1), Outcome.WARN),
        (timedelta(hours=24), Outcome.FAIL),
        (timedelta(minutes=-4), Outcome.PASS),
        (timedelta(minutes=-6), Outcome.INCONCLUSIVE),
    ],
)
def test_freshness_goes_by_the_newest_object(age: timedelta, outcome: Outcome) -> None:
    old, newest = an_origin(NOW - timedelta(days=90)), an_origin(NOW - age)
    answer = freshness(check_context(origins=lambda: iter([old, newest, an_origin(None)])), Freshness())
    assert answer.outcome is outcome


def test_fresh_answer_ends_when_the_data_gets_old() -> None:
    made = NOW - timedelta(hours=1)
    answer = freshness(check_context(origins=lambda: iter([an_origin(made)])), Freshness())
    assert answer.until == made + timedelta(hours=12)


def test_freshness_goes_by_the_time_column_and_the_stalest_table() -> None:
    tables = {
        "flights": {"files": "flights/*.parquet", "time": "time_hour"},
        "weather": {"files": "reference/*.parquet", "time": "time_hour"},
        "planes": {"files": "reference/planes.parquet"},
    }
    times = {"flights": NOW - timedelta(hours=1), "weather": NOW - timedelta(hours=13)}
    context = check_context(spec=a_spec(contract={"tables": tables}), table_time=times.__getitem__)
    answer = freshness(context, Freshness())
    assert answer.outcome is Outcome.WARN
    assert answer.findings[0].subject == "table weather"


def test_table_without_rows_has_no_age() -> None:
    def none(table: str) -> datetime | None:
        assert table == "flights"
        return None

    tables = {"flights": {"files": "flights/*.parquet", "time": "time_hour"}}
    answer = freshness(check_context(spec=a_spec(contract={"tables": tables}), table_time=none), Freshness())
    assert answer.outcome is Outcome.INCONCLUSIVE


def test_source_that_tells_no_times_leaves_freshness_open() -> None:
    answer = freshness(check_context(origins=lambda: iter([an_origin(None)])), Freshness())
    assert answer.outcome is Outcome.INCONCLUSIVE


def test_digest_passes_only_what_the_gate_below_accepted() -> None:
    below = Accepted("pilot", DIGEST, "2026-02-28T00:00:00.000000Z")
    assert digest(check_context(accepted_below=below), NONE).outcome is Outcome.PASS
    answer = digest(check_context(accepted_below=Accepted("pilot", OTHER_DIGEST, below.at)), NONE)
    assert answer.outcome is Outcome.FAIL
    assert answer.findings[0].fix == (
        f"stagegate check nycflights@{DIGEST} --gate pilot && stagegate promote nycflights@{DIGEST} --to pilot"
    )


def test_digest_fails_when_the_gate_below_accepted_nothing() -> None:
    assert digest(check_context(accepted_below=None), NONE).outcome is Outcome.FAIL


def test_digest_does_not_apply_to_the_lowest_gate() -> None:
    answer = digest(check_context(target="pilot"), NONE)
    assert answer.outcome is Outcome.NOT_APPLICABLE
    assert answer.summary == "this gate extends no other"


# ── schema of a table that declares no columns ──────────────────────────────────────────────────────────────────

ACCEPTED = Accepted("production", OTHER_DIGEST, "2026-02-01T00:00:00Z")


def compared(**columns: str) -> CheckResult:
    """The answer about a version that has these columns, where production has `year` and `dep_delay`."""
    before = {"flights": {"year": "BIGINT", "dep_delay": "DOUBLE"}}
    by_digest = {OTHER_DIGEST: before, DIGEST: {"flights": columns}}
    return schema(check_context(reference=ACCEPTED, table_columns=lambda digest, _: by_digest[digest]), NONE)


def test_first_version_without_declared_columns_passes() -> None:
    answer = schema(check_context(), NONE)
    assert answer.outcome is Outcome.PASS
    assert answer.measured["table_columns"] == {"flights": {"year": "BIGINT", "carrier": "VARCHAR"}}


def test_columns_as_in_the_accepted_version_pass() -> None:
    answer = compared(dep_delay="DOUBLE", year="BIGINT")
    assert (answer.outcome, answer.measured["reference"]) == (Outcome.PASS, OTHER_DIGEST)
    assert "as in production's sha256:e07a" in answer.summary


def test_column_that_the_accepted_version_lacks_warns() -> None:
    answer = compared(year="BIGINT", dep_delay="DOUBLE", gate="VARCHAR")
    assert answer.outcome is Outcome.WARN
    assert "column gate (VARCHAR) is new" in answer.summary


def test_column_that_only_the_accepted_version_has_fails() -> None:
    answer = compared(year="BIGINT", dep_dleay="DOUBLE")
    assert answer.outcome is Outcome.FAIL
    assert "column dep_delay (DOUBLE) is missing" in answer.summary
    assert "dep_dleay is new: renamed?" in answer.summary
    assert not [finding for finding in answer.findings if "dep_dleay (DOUBLE) is new" in finding.problem]


def test_column_of_another_type_than_accepted_fails() -> None:
    answer = compared(year="VARCHAR", dep_delay="DOUBLE")
    assert answer.outcome is Outcome.FAIL
    assert "column year is VARCHAR; in production's" in answer.summary


def test_columns_are_asked_again_when_the_target_moves() -> None:
    first, moved = check_context(), check_context(reference=ACCEPTED)
    assert (REFERENCE.value(first), REFERENCE.value(moved)) == ("none", OTHER_DIGEST)


def test_declared_columns_outlast_a_move_of_the_target() -> None:
    tables = {"flights": {"files": "flights/*.parquet", "columns": {"year": "int"}}}
    context = check_context(spec=a_spec(contract={"tables": tables}), reference=ACCEPTED)
    assert REFERENCE.value(context) == "none"


def test_columns_recorded_at_acceptance_need_no_bytes() -> None:
    columns = {"flights": {"year": "BIGINT", "tail": "VARCHAR"}}
    recorded = Evidence("schema", Outcome.PASS, "", "data", measured={"table_columns": columns})
    outcome = DecisionOutcome.ACCEPTED
    decision = Decision("nycflights", OTHER_DIGEST, "production", outcome, (recorded,), "", "", "2026-02-01T00:00:00Z")
    before = replace(ACCEPTED, decision=decision)
    here = {DIGEST: {"flights": {"year": "BIGINT", "carrier": "VARCHAR"}}}
    answer = schema(check_context(reference=before, table_columns=lambda digest, _: here[digest]), NONE)
    assert "column tail (VARCHAR) is missing" in answer.summary
