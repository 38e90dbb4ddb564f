"""Profiles of tables, read by DuckDB."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from prefect_stagegate.catalog.records import decode, encode
from prefect_stagegate.plugins.profile import parts as profiling
from prefect_stagegate.plugins.profile.drift import drift
from prefect_stagegate.plugins.profile.parts import Profiled, profile_table
from prefect_stagegate.plugins.profile.profiles import LEVELS, NO_PARTS, ColumnProfile, ProfileParts
from prefect_stagegate.validations.queries.duck import queries
from tests.support.text_tables import table_of


def write(folder: Path, name: str, /, **columns: Any) -> Path:
    path = folder / name
    parquet.write_table(pa.table(columns), path)
    return path


def profiled(folder: Path, *files: Path, **options: Any) -> Profiled:
    with queries("table t", folder, discreet=True) as database:
        digests = {file.relative_to(folder).as_posix(): file.read_bytes().hex()[-64:] + file.name for file in files}
        return profile_table(database, table_of(folder, list(digests)), digests, **options)


def column(folder: Path, values: Any, **options: Any) -> ColumnProfile:
    return profiled(folder, write(folder, "one.parquet", x=values), **options).profile.columns["x"]


def test_numbers_without_nulls_and_infinities_are_measured(tmp_path: Path) -> None:
    figures = column(tmp_path, [1.0, 2.5, None, math.nan, math.inf, -4.0])
    assert (figures.values, figures.nulls, figures.nonfinite) == (3, 1, 2)
    assert (figures.least, figures.greatest) == (-4.0, 2.5)
    assert figures.mean == pytest.approx(-1 / 6)
    assert figures.deviation == pytest.approx(3.403, abs=1e-3)
    assert figures.counts == {"1": 1, "2.5": 1, "-4": 1, "nan": 1, "inf": 1}
    assert len(figures.quantiles) == LEVELS


def test_each_type_gets_the_figures_that_it_has(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "one.parquet",
        price=pa.array([Decimal("1.50"), Decimal("2.00")]),
        day=[date(1970, 1, 2), None],
        at=pa.array([datetime(1970, 1, 1, 1, tzinfo=UTC)] * 2, pa.timestamp("us", "UTC")),
        fine=pa.array([1_000_000_000, None], pa.timestamp("ns")),
        flag=[True, False],
        hour=[time(1), time(2)],
        tags=[["a"], []],
        none=pa.nulls(2),
        big=pa.array([2**64 - 1, 1], pa.uint64()),
    )
    profile = profiled(tmp_path, file).profile
    assert profile.skipped == {"tags": "VARCHAR[]"}
    figures = profile.columns
    assert figures["price"].counts == {"1.5": 1, "2": 1}
    assert (figures["day"].least, figures["day"].nulls) == (86_400_000_000, 1)
    assert (figures["at"].greatest, figures["fine"].greatest) == (3_600_000_000, 1_000_000)
    assert figures["flag"].value_counts() == {"true": 1, "false": 1}
    assert (figures["hour"].kind, figures["hour"].distinct) == ("other", 2)
    assert (figures["none"].values, figures["none"].nulls) == (0, 2)
    assert figures["big"].greatest == float(2**64)
    assert decode(type(profile), encode(profile), "a record") == profile


def test_tables_without_rows_or_files_have_a_profile(tmp_path: Path) -> None:
    nothing = profiled(tmp_path).profile
    empty = profiled(tmp_path, write(tmp_path, "one.parquet", x=pa.array([], pa.int64()))).profile
    assert (nothing.rows, dict(nothing.columns)) == (0, {})
    assert (empty.rows, empty.columns["x"].values, empty.columns["x"].quantiles) == (0, 0, ())


def test_text_is_kept_for_frequent_categories_only(tmp_path: Path) -> None:
    people = [f"Ada {number} Lovelace" for number in range(40)]
    file = write(tmp_path, "one.parquet", kind=["taxi"] * 30 + ["bus"] * 10, person=people, rare=["taxi"] * 39 + ["x"])
    result = profiled(tmp_path, file)
    assert result.profile.columns["kind"].value_counts() == {"taxi": 30, "bus": 10}
    assert result.profile.columns["person"].distinct == 40
    assert result.profile.columns["rare"].value_counts() == {}
    written = encode([result.profile, result.parts])
    assert b"taxi" in written
    assert b"Lovelace" not in written


def test_columns_that_pii_names_keep_only_their_counts(tmp_path: Path) -> None:
    figures = column(tmp_path, [70_000, 70_000, 90_000], withheld={"x"})
    assert (figures.values, figures.counts, figures.quantiles, figures.least) == (3, None, (), None)
    assert figures.withheld
    assert b"90000" not in encode(figures)


def test_columns_that_become_personal_are_read_again(tmp_path: Path) -> None:
    file = write(tmp_path, "one.parquet", kind=["taxi"] * 30)
    open_ = profiled(tmp_path, file)
    closed = profiled(tmp_path, file, known=open_.parts, withheld={"kind"})
    assert closed.read == 1
    assert b"taxi" not in encode([closed.profile, closed.parts])


def months(folder: Path, *numbers: int, **more: Any) -> list[Path]:
    return [
        write(folder, f"{number}.parquet", x=[number * 10 + row for row in range(10)], kind=["a"] * 10, **more)
        for number in numbers
    ]


def test_only_new_files_are_read(tmp_path: Path) -> None:
    first = profiled(tmp_path, *months(tmp_path, 1, 2, 3))
    kept = decode(ProfileParts, encode(first.parts), "a record")
    second = profiled(tmp_path, *months(tmp_path, 2, 3, 4), known=kept)
    assert (first.read, second.read) == (3, 1)
    assert (second.profile.rows, second.profile.columns["x"].least, second.profile.columns["x"].greatest) == (
        30,
        20,
        49,
    )
    assert second.profile.columns["kind"].value_counts() == {"a": 30}
    whole = profiled(tmp_path, *months(tmp_path, 2, 3, 4)).profile
    assert second.profile == whole
    # The files of the version before are known, too, for a target that still has it.
    assert profiled(tmp_path, *months(tmp_path, 1, 2), known=second.parts).read == 0


def test_misspelled_personal_column_withholds_all(tmp_path: Path) -> None:
    file = write(tmp_path, "one.parquet", Salary=[1], kind=["a"])
    assert [
        name
        for name, column in profiled(tmp_path, file, withheld={"salary"}).profile.columns.items()
        if column.withheld
    ] == ["Salary"]
    assert all(column.withheld for column in profiled(tmp_path, file, withheld={"salry"}).profile.columns.values())


def test_equal_files_count_each(tmp_path: Path) -> None:
    (file,) = months(tmp_path, 1)
    with queries("table t", tmp_path) as database:
        twin = write(tmp_path, "twin.parquet", x=[*range(10, 20)], kind=["a"] * 10)
        digests = {file.name: "same", twin.name: "same"}
        first = profile_table(database, table_of(tmp_path, list(digests)), digests)
        second = profile_table(database, table_of(tmp_path, list(digests)), digests, known=first.parts)
    assert (first.profile.rows, second.profile.rows, second.read) == (20, 20, 0)


# ── folders that are partitions, and other formats ──────────────────────────────────────────────────────────────


def by_year(folder: Path, *years: object, known: ProfileParts = NO_PARTS) -> Profiled:
    """Profile files of the same bytes in one folder for each year."""
    files = [folder / f"year={year}" / "x.parquet" for year in years]
    for file in files:
        file.parent.mkdir(parents=True)
        write(file.parent, file.name, x=[1, 2])
    with queries("table t", folder) as database:
        return profile_table(
            database,
            table_of(folder, []),
            {f"year={year}/x.parquet": "same" for year in years},
            known=known,
        )


def test_same_bytes_in_two_partitions_are_two_profiles(tmp_path: Path) -> None:
    first = by_year(tmp_path / "first", 2013, 2014)
    assert first.profile.columns["year"].counts == {"2013": 2, "2014": 2}
    moved = by_year(tmp_path / "moved", 2014, 2015, known=first.parts)
    assert (moved.read, moved.profile.columns["year"].counts) == (1, {"2014": 2, "2015": 2})
    assert moved.profile == by_year(tmp_path / "anew", 2014, 2015).profile
    assert moved.profile.files != first.profile.files


def test_partition_types_are_those_of_all_files(tmp_path: Path) -> None:
    profile = by_year(tmp_path, "07", "spring").profile
    assert profile.columns["year"].type == "VARCHAR"
    digests = {hashlib.sha256(text.encode()).hexdigest()[:16]: 2 for text in ("07", "spring")}
    assert profile.columns["year"].counts == digests


def test_key_that_one_file_lacks_is_no_partition(tmp_path: Path) -> None:
    own = {"year": [1, 1]}
    (tmp_path / "year=2013").mkdir()
    files = write(tmp_path / "year=2013", "x.parquet", **own), write(tmp_path, "y.parquet", **own)
    assert profiled(tmp_path, *files).profile.columns["year"].counts == {"1": 4}


def test_large_file_in_a_partition_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "SAMPLE_OF_PART", (100, 100))
    (tmp_path / "year=2013").mkdir()
    profile = profiled(tmp_path, write(tmp_path / "year=2013", "x.parquet", x=list(range(10_000)))).profile
    assert (profile.rows, profile.columns["x"].greatest, profile.columns["year"].counts) == (
        10_000,
        9_999,
        {"2013": 10_000},
    )


def test_formats_have_the_same_figures(tmp_path: Path) -> None:
    table = pa.table({"x": [1, 2, 2], "kind": ["a", None, "b"]})
    parquet.write_table(table, tmp_path / "t.parquet")
    feather.write_feather(table, str(tmp_path / "t.feather"))
    (tmp_path / "t.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in table.to_pylist()))
    expected, *others = (profiled(tmp_path, tmp_path / f"t{suffix}") for suffix in (".parquet", ".feather", ".jsonl"))
    for other in others:
        assert other.profile.columns == expected.profile.columns
        again = profiled(tmp_path, *(tmp_path / part for part in ("t.feather", "t.jsonl")), known=other.parts)
        assert (again.read, again.profile.rows) == (2, 6)


def test_another_type_of_a_column_reads_all_files(tmp_path: Path) -> None:
    first = profiled(tmp_path, *months(tmp_path, 1, 2))
    new = write(tmp_path, "3.parquet", x=[0.5], kind=["b"], more=[1])
    second = profiled(tmp_path, *months(tmp_path, 1, 2), new, known=first.parts)
    assert second.read == 3
    assert second.profile.columns["x"].type == "DOUBLE"
    assert second.profile.columns["more"].nulls == 20


def test_parts_of_many_files_stay_within_their_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "MOST_NUMBERS", 3000)
    first = profiled(tmp_path, *months(tmp_path, *range(20)))
    assert first.profile.columns["x"].counts is not None
    known, read = first.parts, []
    for newest in range(20, 30):
        result = profiled(tmp_path, *months(tmp_path, *range(newest + 1)), known=known)
        known = result.parts
        assert sum(part.weight for part in known.parts) <= 3000
        assert result.profile.rows == 10 * (newest + 1)
        read.append(result.read)
    assert sum(read) < 10 * 20, read


def test_text_files_are_profiled_as_a_whole(tmp_path: Path) -> None:
    files = []
    for name, rows in (("a.csv", "1\n2\n"), ("b.csv", "x\n3\n")):
        (tmp_path / name).write_text("n\n" + rows)
        files.append(tmp_path / name)
    first = profiled(tmp_path, files[0])
    both = profiled(tmp_path, *files, known=first.parts)
    assert first.profile.columns["n"].type == "BIGINT"
    assert (both.read, both.profile.columns["n"].type) == (2, "VARCHAR")
    assert profiled(tmp_path, *files, known=both.parts).read == 0


def test_drift_between_merged_profiles_is_that_of_whole_tables(tmp_path: Path) -> None:
    """The stated tolerance: 0.01 deviations."""
    for name, shift in (("before", 0.0), ("now", 0.3)):
        values = [math.sin(number * 12.9898) * 3 + (number % 7) + shift for number in range(40_000)]
        for part in range(8):
            write(tmp_path, f"{name}-{part}.parquet", x=values[part * 5000 : (part + 1) * 5000])
        write(tmp_path, f"{name}.parquet", x=values)
    before, now, whole_before, whole_now = (
        profiled(tmp_path, *sorted(tmp_path.glob(glob))).profile
        for glob in ("before-*.parquet", "now-*.parquet", "before.parquet", "now.parquet")
    )
    (merged,) = drift("t", before, now, ()).columns
    (whole,) = drift("t", whole_before, whole_now, ()).columns
    assert merged.distance == pytest.approx(whole.distance, abs=0.01)
    assert whole.distance is not None
    assert whole.distance > 0.05


def test_a_column_named_as_duckdbs_row_number_is_profiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "SAMPLE_OF_PART", (100, 100))
    file = write(tmp_path, "one.parquet", file_row_number=[*range(10_000)], y=[*range(10_000)])
    figures = profiled(tmp_path, file).profile.columns
    assert figures["file_row_number"].greatest == 9999
    assert figures["y"].quantiles[LEVELS // 2] == pytest.approx(5000, abs=1500)
