from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from prefect_stagegate.errors import ValidationError
from prefect_stagegate.model import Entry
from prefect_stagegate.spec import TableSpec
from prefect_stagegate.validations import newest_time
from tests.support.parquet_footers import false_statistics

TABLE = TableSpec(files="*.parquet", time="t")


def newest(folder: Path, *queries: str, table: TableSpec = TABLE) -> datetime | None:
    entries = []
    for number, query in enumerate(queries):
        duckdb.sql(f"COPY ({query}) TO '{folder}/{number}.parquet'")
        entries.append(Entry(f"{number}.parquet", 1, ""))
    return newest_time(folder, entries, table)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("TIMESTAMP '2013-05-01 12:30:00'", datetime(2013, 5, 1, 12, 30, tzinfo=UTC)),
        ("TIMESTAMPTZ '2013-05-01 12:30:00+02'", datetime(2013, 5, 1, 10, 30, tzinfo=UTC)),
        ("DATE '2013-05-01'", datetime(2013, 5, 1, tzinfo=UTC)),
        ("'2013-05-01T12:30:00Z'", datetime(2013, 5, 1, 12, 30, tzinfo=UTC)),
    ],
)
def test_newest_time_of_all_files_is_found_in_each_type(tmp_path: Path, value: str, expected: datetime) -> None:
    older = value.replace("2013", "2012")
    assert newest(tmp_path, f"SELECT {value} AS t", f"SELECT {older} AS t") == expected


def test_false_statistics_make_no_table_fresh(tmp_path: Path) -> None:
    duckdb.sql(f"COPY (SELECT TIMESTAMP '2013-05-01' AS t) TO '{tmp_path}/0.parquet'")
    file = tmp_path / "0.parquet"
    old, new = (int(datetime(year, 5, 1, tzinfo=UTC).timestamp() * 1_000_000) for year in (2013, 2026))
    file.write_bytes(false_statistics(file.read_bytes(), old, new))
    assert newest_time(tmp_path, [Entry("0.parquet", 1, "")], TABLE) == datetime(2013, 5, 1, tzinfo=UTC)


def test_a_table_without_rows_has_no_newest_moment(tmp_path: Path) -> None:
    assert newest(tmp_path, "SELECT TIMESTAMP '2013-05-01' AS t WHERE false") is None


@pytest.mark.parametrize("query", ["SELECT 1 AS other", "SELECT 'soon' AS t", "SELECT true AS t"])
def test_absent_or_untimed_column_is_an_error_that_names_it(tmp_path: Path, query: str) -> None:
    with pytest.raises(ValidationError, match="time column 't'"):
        newest(tmp_path, query)


def test_files_are_decoded_where_only_the_version_opens(tmp_path: Path) -> None:
    """Python reads CSV, so that only the kernel is in the way."""
    (tmp_path / "view").mkdir()
    secret = tmp_path / "secret.csv"
    secret.write_text("t\n2013-05-01\n")
    with pytest.raises(ValidationError, match="Permission denied"):
        newest_time(tmp_path / "view", [Entry(str(secret), 1, "")], TableSpec(files="**", time="t"))
