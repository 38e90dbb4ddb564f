"""Values of files merge into what the whole table has."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_stagegate.model.measures import FileValues
from prefect_stagegate.validations.engines.merging import merge_of

numbers = st.lists(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5), min_size=1, max_size=6)


def merged(metric: str, files: Sequence[Sequence[Any]]) -> object:
    merge = merge_of(metric)
    assert merge is not None
    return merge.merge(files)


@given(numbers)
def test_mean_and_deviation_of_files_are_the_tables(files: list[list[float]]) -> None:
    rows = [number for file in files for number in file]
    means = [(statistics.fmean(file), len(file)) for file in files]
    assert merged("column.mean", means) == pytest.approx(statistics.fmean(rows), abs=1e-6)
    deviations = [
        (statistics.stdev(file) if len(file) > 1 else None, len(file), statistics.fmean(file)) for file in files
    ]
    expected = pytest.approx(statistics.stdev(rows), abs=1e-3) if len(rows) > 1 else None
    assert merged("column.standard_deviation", deviations) == expected


@given(numbers)
def test_order_of_files_changes_no_sum(files: list[list[float]]) -> None:
    sums = [(sum(file),) for file in files]
    assert merged("column.sum", sums) == merged("column.sum", sums[::-1])


def test_values_of_another_version_are_kept_up_to_as_many() -> None:
    first, second, larger = (FileValues(("a",), {name: [[1]] for name in names}) for names in ("xy", "yz", "uvw"))
    assert set(second.keeping(first).files) == {"x", "y", "z"}
    assert second.keeping(larger) == second
    assert second.keeping(FileValues(("b",), {"x": [[1]]})) == second


def test_files_without_rows_count_for_nothing() -> None:
    assert merged("column_values.between.unexpected_count", [(2,), (None,)]) == 2
    assert merged("column.min", [(None,), (3,), (-1,)]) == -1
    assert merged("column.max", []) is None
    assert merged("column.sum", [(None,)]) is None
    assert merged("column.mean", [(None, 0)]) is None


def test_nan_is_above_all_values_in_any_order_of_files() -> None:
    files = [(1.0,), (math.nan,), (9.0,)]
    assert [merged("column.min", files), merged("column.min", files[::-1])] == [1.0, 1.0]
    assert all(math.isnan(merged("column.max", order)) for order in (files, files[::-1]))  # type: ignore[arg-type]
    assert math.isnan(merged("column.sum", [(math.inf,), (-math.inf,)]))  # type: ignore[arg-type]
    assert merged("column.sum", [(1e308,), (1e308,)]) == math.inf


def test_what_needs_the_whole_table_does_not_merge() -> None:
    assert merge_of("column.quantile_values") is None
    assert merge_of("column.distinct_values.count") is None
