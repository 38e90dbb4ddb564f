"""Queries for profiles read a table's files by the dialect and format that the spec declares."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet

from prefect_stagegate.model import Entry
from prefect_stagegate.model.measures import Balance, Duplicates
from prefect_stagegate.plugins.profile.balance import balance
from prefect_stagegate.plugins.profile.drift import profile
from prefect_stagegate.plugins.profile.duplicates import duplicates
from prefect_stagegate.plugins.profile.pii import scan
from prefect_stagegate.plugins.profile.profiles import files_digest
from prefect_stagegate.spec import TableSpec
from prefect_stagegate.spec.csv_dialect import AS_USUAL
from prefect_stagegate.validations import newest_time
from prefect_stagegate.validations.partition_columns import row_digests
from prefect_stagegate.validations.queries.duck import column_types, queries
from prefect_stagegate.validations.queries.relations import TableFiles
from tests.support.text_tables import table_of

GERMAN = {"dates": "%d.%m.%Y", "times": "%d.%m.%Y %H:%M", "separator": ";", "decimal": ",", "null": ["", "k.A."]}


def test_every_query_reads_the_declared_dialect(tmp_path: Path) -> None:
    text = "day;d;mail\n01.04.2026;1,5;ada@example.org\n03.04.2026;1,5;k.A.\n"
    (tmp_path / "a.csv").write_text(text)
    spec = TableSpec.model_validate({"files": "*", "csv": GERMAN, "time": "day"})
    table = TableFiles(tmp_path, ["a.csv"], spec.reading)
    entry = Entry("a.csv", len(text), "blake3:a")
    assert newest_time(tmp_path, [entry], spec) == datetime(2026, 4, 3, tzinfo=UTC)
    with queries("t", tmp_path) as database:
        assert column_types(database, table) == {"day": "DATE", "d": "number", "mail": "VARCHAR"}
        assert duplicates(database, table, ["d"]) == Duplicates(2, 1, ("a.csv",))
        assert balance(database, table, "mail") == Balance(1, 1, 1, "ada@example.org", 1)
        assert scan(database, table, (), (), ["email"]).hits == {("mail", "email"): 1}
        assert profile(database, table).columns["d"].greatest == 1.5


def test_queries_read_arrow_and_json(tmp_path: Path) -> None:
    january = pa.table({"distance": [100, -5]})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_stream(sink, january.schema) as writer:
        writer.write_table(january)
    (tmp_path / "b.jsonl").write_text('{"distance": 100}\n{"distance": -5}\n')
    (tmp_path / "c.csv").write_text("distance\n9\n")
    table = table_of(tmp_path, ["a.arrow", "b.jsonl", "c.csv"])
    with queries("the duplicates", tmp_path) as database:
        assert duplicates(database, table, ["distance"]) == Duplicates(5, 2, ("a.arrow", "b.jsonl"))


def test_figures_of_another_reading_are_not_used() -> None:
    files = {"a.csv": "blake3:1", "c.parquet": "blake3:3"}
    assert files_digest(list(row_digests(files, AS_USUAL).values())) != files_digest(list(files.values()))
