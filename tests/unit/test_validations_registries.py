"""The spec can name what validations has, and nothing else."""

from great_expectations.expectations.registry import (
    get_expectation_impl,
    list_registered_expectation_implementations,
)

from prefect_stagegate.spec import vocabulary
from prefect_stagegate.validations.columntypes import COLUMN_TYPES


def test_the_spec_names_every_column_type() -> None:
    assert set(vocabulary.COLUMN_TYPES) == set(COLUMN_TYPES)


def test_the_spec_knows_the_installed_expectations() -> None:
    known = vocabulary.expectations()
    names = list_registered_expectation_implementations()
    # Other tests register their own.
    own = {name for name in names if get_expectation_impl(name).__module__.startswith("great_expectations.")}
    assert set(known) == own
    for name in known:
        fields = set(get_expectation_impl(name).__fields__)
        assert not (arguments := vocabulary.arguments(name)) or fields <= set(arguments)
