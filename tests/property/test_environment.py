"""Two environments with two fingerprints differ in something that `compare` tells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from prefect_stagegate.environment import ABSENT, UNKNOWN, Environment, Weight, compare
from prefect_stagegate.testing.contexts import ENVIRONMENT

texts = st.sampled_from((UNKNOWN, ABSENT, "1.2.3", "1.2.4", "2.0", "other", "sha256:" + "9" * 64))
numbers = st.integers(0, 2**40)


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if not isinstance(value, dict):
        yield path
        return
    for name, inside in value.items():
        yield from leaves(inside, (*path, name))


LEAVES = sorted(set(leaves(ENVIRONMENT.to_json())) - {("volume", "device")})


@st.composite
def environments(draw: st.DrawFn) -> Environment:
    """The environment of the tests, with some of its facts changed and some distributions and variables gone."""
    facts: Any = ENVIRONMENT.to_json()
    for path in draw(st.lists(st.sampled_from(LEAVES), max_size=3, unique=True)):
        *folders, name = path
        inside = facts
        for folder in folders:
            inside = inside[folder]
        inside[name] = draw(numbers if isinstance(inside[name], int) else texts)
    for gone in draw(st.sets(st.sampled_from(("numpy", "pandas")))):
        del facts["python"]["distributions"][gone]
    for gone in draw(st.sets(st.sampled_from(sorted(ENVIRONMENT.variables)))):
        del facts["variables"][gone]
    return Environment.from_json(facts)


@given(environments(), environments())
def test_what_makes_another_fingerprint_is_told_as_a_difference(there: Environment, here: Environment) -> None:
    differences = list(compare(there, here))
    if there.fingerprint != here.fingerprint:
        assert differences
    else:
        assert all(difference.weight in (Weight.UNKNOWN, Weight.WARNING, Weight.BLOCKING) for difference in differences)
        assert all(
            UNKNOWN in (difference.there, difference.here) or "driver" in difference.why for difference in differences
        )


@given(environments(), environments())
def test_differences_are_symmetric_and_say_why(there: Environment, here: Environment) -> None:
    one_way = {(difference.group, difference.name) for difference in compare(there, here)}
    other_way = {(difference.group, difference.name) for difference in compare(here, there)}
    # A driver that is too old counts only where it is looked at.
    assert one_way ^ other_way <= {("cuda", "driver")}
    assert all(difference.why for difference in compare(there, here))
