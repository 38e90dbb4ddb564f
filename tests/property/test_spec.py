"""Any spec survives its canonical form, and whatever is no spec ends in a SpecError that says where."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_stagegate.errors import SpecError
from prefect_stagegate.spec import load_spec
from prefect_stagegate.spec.yamltree import NotYaml, read_tree
from prefect_stagegate.units import format_duration, format_size, parse_duration, parse_size
from tests.support.known_checks import KNOWN_CHECKS

names = st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,8}){0,2}", fullmatch=True)
words = st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters="\x7f"), min_size=1, max_size=12)
segments = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=6)
globs = st.lists(segments | st.sampled_from(["*", "**", "*.parquet"]), min_size=1, max_size=3).map("/".join)
urls = st.sampled_from(["s3://lake/", "data/", "../nas/", "/mnt/x", "file://y/", "sftp://me@host/z/"])
durations = st.integers(0, 10_000).flatmap(lambda n: st.sampled_from([f"{n}{unit}" for unit in "smh"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


def optional(**fields: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    return fields


mirrors = st.fixed_dictionaries({"url": urls})
plain_sources = st.fixed_dictionaries(
    {"url": urls},
    optional=optional(
        include=st.lists(globs, max_size=2),
        exclude=st.lists(globs, max_size=2),
        into=globs,
        credentials=st.just("aws-credentials/onprem"),
        partitions=st.dictionaries(words, st.integers() | st.lists(segments, min_size=1, max_size=2), max_size=2),
        min_size=st.integers(0, 10) | st.just("1kB"),
        newer_than=durations | st.sampled_from(["2013-06-01", "2013-06-01T12:00:00+02:00"]),
        sample=st.sampled_from(["10%", "1/7", 0.1, "0.25", 1]),
        limit=st.integers(1, 1_000_000),
        rename=st.lists(st.fixed_dictionaries({"from": st.just("raw/(.*)"), "to": st.just(r"\1.bin")}), max_size=2),
        rehash=st.sampled_from(["always", "when_weak", "never"]),
        mirrors=st.lists(mirrors, max_size=2),
    ),
)
options = st.dictionaries(st.sampled_from(["endpoint_url", "profile", "anon"]), words | st.booleans())
sources = plain_sources | st.builds(
    lambda source, given: {**source, "url": "s3://lake/", "options": given}, plain_sources, options
)
suites = st.fixed_dictionaries(
    {
        "expectations": st.lists(
            st.fixed_dictionaries(
                {"type": words},
                optional=optional(
                    kwargs=st.dictionaries(words, values, max_size=3),
                    severity=st.sampled_from(["critical", "warning", "info"]),
                    meta=st.dictionaries(words, values, max_size=2),
                ),
            ),
            max_size=3,
        )
    },
    optional=optional(name=words, meta=st.dictionaries(words, values, max_size=2)),
)
tables = st.fixed_dictionaries(
    {"files": globs},
    optional=optional(
        suite=suites,
        engine=st.sampled_from(["duckdb", "pandas"]),
        columns=st.dictionaries(words, words, max_size=3),
        time=words,
    ),
)
severities = optional(severity=st.sampled_from(["blocking", "warning", "info"]))
requirements = st.one_of(
    st.sampled_from(list(KNOWN_CHECKS)),
    st.fixed_dictionaries({"schema": st.fixed_dictionaries({}, optional=severities)}),
    st.fixed_dictionaries(
        {"freshness": st.fixed_dictionaries({}, optional={**severities, "warn": durations, "fail": durations})}
    ),
    st.fixed_dictionaries({"approval": st.fixed_dictionaries({"from": st.lists(words, max_size=2)})}),
)


@st.composite
def gates(draw: st.DrawFn) -> dict[str, Any]:
    made: dict[str, Any] = {}
    targets = draw(st.lists(names.filter(lambda name: name != "latest"), max_size=3, unique=True))
    for target in targets:
        below = draw(st.none() | st.sampled_from(list(made))) if made else None
        made[target] = {"require": draw(st.lists(requirements, min_size=1, max_size=4)), "extends": below}
        made[target]["on_withdrawal"] = draw(st.sampled_from([None, "hold", "fall_back"]))
    return made


specs = st.fixed_dictionaries(
    {"stagegate": st.just(1), "dataset": names, "sources": st.lists(sources, min_size=1, max_size=3)},
    optional=optional(
        owners=st.dictionaries(st.sampled_from(["data", "ai", "infra", "governance"]), words),
        license=words,
        contract=st.fixed_dictionaries({}, optional=optional(tables=st.dictionaries(words, tables, max_size=2))),
        max_failed_objects=st.integers(0, 9),
        gates=gates(),
    ),
)


@given(specs)
@settings(max_examples=60, deadline=None)
def test_a_spec_and_its_canonical_form_are_equal(written: dict[str, Any]) -> None:
    spec = load_spec(written, known_checks=KNOWN_CHECKS)

    again = load_spec(json.loads(json.dumps(spec.canonical())), known_checks=KNOWN_CHECKS)

    assert again == spec
    assert again.digest == spec.digest
    assert again.canonical() == spec.canonical()
    assert [again.gate(target) for target in spec.gates] == [spec.gate(target) for target in spec.gates]


@given(specs)
@settings(max_examples=30, deadline=None)
def test_a_spec_means_the_same_in_a_file_as_in_a_dictionary(written: dict[str, Any]) -> None:
    tree, _, flaws = read_tree(json.dumps(written, ensure_ascii=False, indent=1))  # JSON is YAML

    assert flaws == []
    assert load_spec(tree, known_checks=KNOWN_CHECKS) == load_spec(written, known_checks=KNOWN_CHECKS)


def problems_of(written: dict[str, Any]) -> tuple[str, ...]:
    """What is wrong with a spec; empty when it loads."""
    try:
        load_spec(written, known_checks=KNOWN_CHECKS)
    except SpecError as error:
        return error.problems
    return ()


@given(
    st.dictionaries(st.sampled_from(["stagegate", "dataset", "sources", "contract", "gates", "owners", "x"]), values)
)
@settings(max_examples=150, deadline=None)
def test_whatever_is_no_spec_is_refused_as_one(written: dict[str, Any]) -> None:
    assert all(problem.startswith("spec: ") for problem in problems_of(written))


@given(specs, st.data())
@settings(max_examples=80, deadline=None)
def test_a_spec_with_one_part_spoilt_loads_or_is_refused_there(written: dict[str, Any], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(written)))

    problems = problems_of({**written, key: data.draw(values)})

    assert all(problem.startswith(f"spec: {key}") for problem in problems)


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("[]{}:,-&*!|>'\"%@#\n \t?<"), max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        tree, lines, _ = read_tree(text)
    except NotYaml:
        return
    json.dumps(tree, allow_nan=False)
    assert all(line >= 1 for line in lines.values())


@given(st.integers(0, 36_500 * 86_400))
def test_any_duration_is_read_as_it_was_written(seconds: int) -> None:
    duration = timedelta(seconds=seconds)

    assert parse_duration(format_duration(duration)) == duration


@given(st.integers(0, 2**49))
def test_any_size_is_read_as_it_was_written(size: int) -> None:
    assert parse_size(format_size(size)) == size
