from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from prefect_stagegate.checks.publication import CORE, RAI, Croissant, croissant
from prefect_stagegate.model import Outcome
from prefect_stagegate.testing.contexts import a_spec, check_context

PUBLICATION: dict[str, Any] = {
    "description": "Flights of a year.",
    "url": "https://example.org/nycflights",
    "creators": [{"name": "Example Institute"}],
    "published": "2026-01-31",
}
FACTS: dict[str, Any] = {
    "data_limitations": ["One year."],
    "data_biases": ["Three airports."],
    "personal_sensitive_information": ["None."],
    "data_use_cases": ["Forecasts."],
    "data_social_impact": "None is known.",
    "has_synthetic_data": False,
    "was_derived_from": ["https://example.org/raw"],
    "was_generated_by": ["Months were joined."],
}


def missing(parameters: Croissant, **keys: Any) -> list[str]:
    """The keys that the check misses in a spec that has all others."""
    spec = a_spec(**{"publication": PUBLICATION, "rai": FACTS, **keys})
    result = croissant(check_context(spec=spec), parameters)
    assert (result.outcome is Outcome.FAIL) == bool(result.findings)
    return [finding.subject for finding in result.findings]


def test_a_complete_description_passes() -> None:
    assert missing(Croissant()) == []


@pytest.mark.parametrize("key", CORE)
def test_each_missing_key_of_the_publication_fails(key: str) -> None:
    rest = {name: value for name, value in PUBLICATION.items() if name != key}
    assert missing(Croissant(), publication=rest) == [f"publication.{key}"]


@pytest.mark.parametrize("key", RAI)
def test_each_missing_fact_fails(key: str) -> None:
    rest = {name: value for name, value in FACTS.items() if name != key}
    assert missing(Croissant(), rai=rest) == [f"rai.{key}"]


def test_missing_license_fails() -> None:
    assert missing(Croissant(), license=None) == ["license"]


def test_a_gate_may_ask_for_less_and_for_more() -> None:
    assert missing(Croissant(groups=("core",)), rai={}) == []
    assert missing(Croissant(also=("annotator_demographics",))) == ["rai.annotator_demographics"]


def test_a_gate_may_not_ask_for_what_is_no_key() -> None:
    with pytest.raises(ValidationError, match="did you mean 'data_biases'"):
        Croissant(also=("data_bias",))


def test_finding_says_what_to_write() -> None:
    spec = a_spec(publication=PUBLICATION, rai={**FACTS, "data_biases": []})
    (finding,) = croissant(check_context(spec=spec), Croissant()).findings
    assert finding.fix == "Write `data_biases:` below `rai:` in the spec: known biases."
