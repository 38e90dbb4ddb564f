"""Names of people, which stay one however they are spelled; and results, which are neither true nor false."""

from __future__ import annotations

import pytest

from prefect_stagegate.jobs.upkeep.verify import Verification
from prefect_stagegate.model import Decision, DecisionOutcome, Evidence, Outcome, Promotion, Validation, person_key

INES = "Inês Example"


@pytest.mark.parametrize(
    "spelling",
    [
        "INÊS EXAMPLE",
        " inês  example ",
        "Ine\u0302s Example",  # the accent as a mark of its own
        "Inês\u200b Example",  # a space of no width
        "Inês\u00a0Example",
        "\uff29nês Example",  # a full-width letter
        "Inês\u202e Example\x00",
    ],
)
def test_nobody_becomes_a_second_person_by_another_spelling(spelling: str) -> None:
    assert person_key(spelling) == person_key(INES)


def test_a_name_of_nothing_visible_is_none() -> None:
    assert person_key(" \u200b\t") == ""
    assert person_key("Ines Example") != person_key(INES)


RESULTS = {
    "accepted": Decision("things", "sha256:0", "production", DecisionOutcome.REFUSED, (), "", "", ""),
    "passed": Validation("things", "sha256:0", False, (), ()),
    "digest": Promotion("things", "production", "sha256:0", ""),
    "damaged": Verification(0, 0, 0, (), False),
    "outcome": Evidence("schema", Outcome.FAIL, "", "data"),
}


@pytest.mark.parametrize("field", RESULTS)
def test_result_is_neither_true_nor_false(field: str) -> None:
    with pytest.raises(TypeError, match=rf"look at its `\.{field}`"):
        bool(RESULTS[field])
    assert hasattr(RESULTS[field], field)
