"""Names of people: one person stays one, however their name is spelled."""

from __future__ import annotations

import pytest

from prefect_stagegate.model import person_key

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
