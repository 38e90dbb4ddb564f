"""How values of the data are written: as they are for the caller, as patterns for records, never personal ones."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_stagegate.validations.worker.judgements import engine_reason
from prefect_stagegate.validations.worker.values import LONGEST, MASKED, MOST_EXAMPLES, RowWriter, pattern, plain

SECRET = "ada.lovelace@example.org"


@pytest.mark.parametrize(
    "value", [-7, 2.5, True, Decimal("1.50"), date(2013, 1, 1), datetime(2013, 1, 1, tzinfo=UTC), np.int64(3)]
)
def test_numbers_and_times_are_recorded_as_they_are(value: object) -> None:
    assert pattern(value) == plain(value)


@pytest.mark.parametrize("value", [SECRET, SECRET.encode(), [SECRET], {"to": [SECRET]}, (1, SECRET), np.str_(SECRET)])
def test_text_is_recorded_as_its_pattern_wherever_it_stands(value: object) -> None:
    assert "lovelace" in plain(value)
    assert "pattern" in pattern(value)
    assert "lovelace" not in pattern(value)


@given(st.text(min_size=1))
def test_pattern_keeps_no_letter_and_no_digit(text: str) -> None:
    kept = {character for character in pattern(text).removeprefix("pattern ") if character.isalnum()}
    assert kept <= {"A", "a", "9"} or pattern(text) == "null"


@pytest.mark.parametrize("form", [plain, pattern])
def test_personal_columns_are_masked_whatever_their_case(form: object) -> None:
    writer = RowWriter(["id", "Email"], ["EMAIL"])
    assert writer.row([1, SECRET], form) == f"1, {MASKED}"  # type: ignore[arg-type]
    assert writer.examples([(1, SECRET), {"id": 2, "Email": SECRET}], form) == (f"1, {MASKED}", f"2, {MASKED}")  # type: ignore[arg-type]


@pytest.mark.parametrize("row", [(1, SECRET, 2), SECRET, {"other": SECRET}, [[SECRET]]])
def test_rows_of_an_unknown_form_are_masked_whole(row: object) -> None:
    (example,) = RowWriter(["id", "email"], ["email"]).examples([row], plain)
    assert "lovelace" not in example


def test_examples_are_different_few_and_short() -> None:
    refused = ["LGA", "LGA", None, *(str(number) * 1000 for number in range(20))]
    examples = RowWriter(["origin"], []).examples(refused, plain)
    assert len(examples) == MOST_EXAMPLES
    assert examples[0] == "LGA"
    assert max(map(len, examples)) == LONGEST


def test_sentence_of_a_record_names_no_mask_and_no_null() -> None:
    assert RowWriter(["email"], ["email"]).recordable([SECRET]) == ""
    assert RowWriter(["email"], []).recordable([None]) == ""
    assert RowWriter(["tail"], []).recordable(["N14228"]) == "pattern A99999"


def test_engine_reason_quotes_no_value() -> None:
    error = "Conversion Error: Could not convert string 'O'Brien, Ada' to INT32\nLINE 1: …"
    assert "Brien" not in engine_reason(error, is_discreet=False)
    assert "Conversion" not in engine_reason(error, is_discreet=True)
