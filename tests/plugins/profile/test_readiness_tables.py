"""Checks on rows: what the figures mean."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_stagegate.clock import stamp
from prefect_stagegate.gate import CheckContext
from prefect_stagegate.gate.accepted import Accepted
from prefect_stagegate.model import Outcome
from prefect_stagegate.model.measures import Balance, ColumnDrift, Duplicates, Overlap, Scan, TableDrift
from prefect_stagegate.plugins.profile.checks.drift_check import Drift, drift
from prefect_stagegate.plugins.profile.checks.pii_check import Pattern, Pii, pii
from prefect_stagegate.plugins.profile.checks.table_checks import (
    BalanceParameters,
    DuplicatesParameters,
    balance,
    duplicates,
)
from prefect_stagegate.plugins.profile.measuring import measures
from prefect_stagegate.plugins.profile.pii import PATTERNS
from prefect_stagegate.testing.contexts import DIGEST, NOW, OTHER_DIGEST, check_context
from tests.plugins.profile.figures import Figures


def given(**answers: Any) -> CheckContext:
    return check_context({measures: Figures(answers)}, last_accepted=Accepted("production", OTHER_DIGEST, stamp(NOW)))


KEYS = DuplicatesParameters(keys={"flights": ("id",)})


def test_no_duplicate_passes_and_one_fails() -> None:
    assert duplicates(given(), KEYS).outcome is Outcome.PASS
    answer = duplicates(given(duplicates=Duplicates(7, 1, ("a.parquet",))), KEYS)
    assert answer.outcome is Outcome.FAIL
    assert answer.summary == "table flights: 1 row of 7 repeat the id of another"
    assert "a.parquet" in answer.findings[0].fix


def test_duplicates_can_not_be_told_without_keys_or_rows() -> None:
    assert duplicates(given(), DuplicatesParameters()).outcome is Outcome.INCONCLUSIVE
    assert duplicates(given(duplicates=Duplicates(0, 0)), KEYS).outcome is Outcome.INCONCLUSIVE


SPLITS = DuplicatesParameters(splits={"train": "train/*", "test": "test/*"}, by=("id",))


def test_splits_that_share_a_file_or_a_record_fail() -> None:
    shared = Overlap({"train": 9, "test": 5}, {("train", "test"): 2})
    assert duplicates(given(), SPLITS).outcome is Outcome.PASS
    for what in ("shared_files", "shared_records"):
        answer = duplicates(given(**{what: shared}), SPLITS)
        assert answer.outcome is Outcome.FAIL
        assert "they share 2" in answer.findings[0].problem


@pytest.mark.parametrize("what", ["shared_files", "shared_records"])
def test_an_empty_split_is_inconclusive(what: str) -> None:
    answer = duplicates(given(**{what: Overlap({"train": 9, "test": 0}, {})}), SPLITS)
    assert answer.outcome is Outcome.INCONCLUSIVE
    assert answer.findings[0].subject == "split test"


def test_splits_may_be_tables_with_keys() -> None:
    keys = {"flights": ("id",), "others": ("id",)}
    answer = duplicates(given(), DuplicatesParameters(keys=keys, splits=("flights", "others")))
    assert answer.outcome is Outcome.PASS
    assert any(name.startswith("records of flights, others") for name in answer.measured)


LIMITS = BalanceParameters(labels={"flights": "carrier"}, warn=0.1, fail=0.05)


@pytest.mark.parametrize(
    ("smallest", "outcome"), [(10, Outcome.PASS), (9, Outcome.WARN), (5, Outcome.WARN), (4, Outcome.FAIL)]
)
def test_the_smallest_class_decides(smallest: int, outcome: Outcome) -> None:
    answer = balance(given(balance=Balance(100, 3, 4, "ZZ", smallest)), LIMITS)
    assert answer.outcome is outcome
    assert f"{smallest:.2f}%" in answer.summary


def test_balance_can_not_be_told_without_labels_or_limits() -> None:
    assert balance(given(), BalanceParameters(labels={"flights": "carrier"})).outcome is Outcome.INCONCLUSIVE
    assert balance(given(), BalanceParameters(warn=0.1)).outcome is Outcome.INCONCLUSIVE
    assert balance(given(balance=Balance(0, 9, 0)), LIMITS).outcome is Outcome.INCONCLUSIVE


def moved(*distances: float | None, rows: int = 5000) -> CheckContext:
    columns = tuple(
        ColumnDrift("flights", f"c{at}", far, "wasserstein", "" if far is not None else "a TIME is not compared")
        for at, far in enumerate(distances)
    )
    return given(drift={"flights": TableDrift(rows, 5000, columns)})


@pytest.mark.parametrize(
    ("distances", "outcome"),
    [
        ((0.0, 0.0999), Outcome.PASS),
        ((0.1, 0.0, 0.0), Outcome.WARN),
        ((0.1, 0.0), Outcome.FAIL),
        ((0.2, 0.0, None), Outcome.FAIL),
        ((None,), Outcome.INCONCLUSIVE),
        ((), Outcome.INCONCLUSIVE),
    ],
)
def test_moved_columns_warn_and_half_of_them_fail(distances: tuple[float | None, ...], outcome: Outcome) -> None:
    assert drift(moved(*distances), Drift()).outcome is outcome


def test_too_few_rows_tell_no_drift() -> None:
    assert drift(moved(0.0, rows=999), Drift()).outcome is Outcome.INCONCLUSIVE
    assert drift(moved(0.0, rows=999), Drift(rows=900)).outcome is Outcome.PASS


def test_a_version_is_compared_with_another_that_was_accepted() -> None:
    def reference(**accepted: str | None) -> object:
        known: dict[str, Any] = {
            name: Accepted("pilot", digest, stamp(NOW)) for name, digest in accepted.items() if digest
        }
        return drift(check_context({measures: Figures()}, **known), Drift()).measured.get("reference")

    third = "sha256:" + "3" * 64
    assert reference() is None
    assert reference(accepted_below=DIGEST) is None
    assert reference(accepted_below=OTHER_DIGEST, last_accepted=third) == OTHER_DIGEST
    assert reference(accepted_below=DIGEST, last_accepted=third) == third
    assert drift(check_context(), Drift()).outcome is Outcome.NOT_APPLICABLE


def test_personal_data_fail_and_unscanned_text_warns() -> None:
    hit = Scan(7, ("mail",), {}, {("mail", "email"): 3})
    answer = pii(given(scan=hit), Pii())
    assert (answer.outcome, answer.summary) == (Outcome.FAIL, "personal data in flights.mail")
    assert "3 rows of 7" in answer.findings[0].problem
    assert pii(given(), Pii()).outcome is Outcome.PASS
    assert pii(given(scan=Scan(7, ("a",), {"tags": "nested"}, {})), Pii()).outcome is Outcome.WARN
    assert pii(given(outside_tables=2), Pii()).outcome is Outcome.WARN
    assert pii(given(outside_tables=2), Pii(columns={"flights": ("a",)})).outcome is Outcome.PASS


def test_nothing_scanned_is_no_pass() -> None:
    assert pii(given(scan=Scan(0, ("a",), {}, {})), Pii()).outcome is Outcome.INCONCLUSIVE
    assert pii(given(scan=Scan(7, (), {}, {})), Pii()).outcome is Outcome.INCONCLUSIVE


def test_every_pattern_that_a_gate_may_name_is_one_that_is_known() -> None:
    assert set(Pii().patterns) == PATTERNS.keys() == set(Pattern.__args__)  # type: ignore[attr-defined]
