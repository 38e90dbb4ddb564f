"""Queries over the rows of a version, on DuckDB."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event

import pyarrow as pa
import pytest
from pyarrow import parquet

from prefect_stagegate.errors import Cancelled, ValidationError, WorkerCrashed
from prefect_stagegate.model.measures import Balance, Duplicates, Overlap, TableDrift
from prefect_stagegate.plugins.profile.balance import balance
from prefect_stagegate.plugins.profile.drift import FURTHEST, drift, profile
from prefect_stagegate.plugins.profile.duplicates import MOST_SPLITS, duplicates, is_key, shared_records
from prefect_stagegate.plugins.profile.pii import PATTERNS, scan
from prefect_stagegate.validations.queries.duck import queries
from tests.support.query_readers import read_queries_by, serve_queries_by
from tests.support.text_tables import table_of
from tests.support.waiting import eventually

Rows = Mapping[str, Sequence[object]]


def write(folder: Path, name: str, /, **columns: Sequence[object]) -> str:
    """A Parquet file, or CSV by its name."""
    if name.endswith(".parquet"):
        parquet.write_table(pa.table(columns), folder / name)
    else:
        rows = [
            ",".join(columns),
            *(",".join(f'"{value}"' for value in row) for row in zip(*columns.values(), strict=True)),
        ]
        (folder / name).write_text("\n".join(rows) + "\n")
    return name


def test_duplicates_are_counted_over_all_files_and_two_named(tmp_path: Path) -> None:
    files = [
        write(tmp_path, "a.parquet", id=[1, 2, 3], day=["mo", "mo", None]),
        write(tmp_path, "b [1].parquet", id=[3, 2, 2], day=[None, "tu", "tu"]),
    ]
    table = table_of(tmp_path, files)
    with queries("flights", tmp_path) as session:
        assert duplicates(session, table, ["id"]) == Duplicates(6, 3, ("a.parquet", "b [1].parquet"))
        assert duplicates(session, table, ["id", "day"]) == Duplicates(6, 2, ("a.parquet", "b [1].parquet"))
        assert duplicates(session, table_of(tmp_path, files[:1]), ["id"]) == Duplicates(3, 0)
        assert duplicates(session, table_of(tmp_path, []), ["id"]) == Duplicates(0, 0)


def test_value_in_two_files_makes_a_column_no_key(tmp_path: Path) -> None:
    files = [
        write(tmp_path, "a.parquet", id=[1, 2], day=["mo", "tu"]),
        write(tmp_path, "b.parquet", id=[3], day=["mo"]),
    ]
    with queries("flights", tmp_path) as session:
        table = table_of(tmp_path, files)
        assert [is_key(session, table, column) for column in ("id", "day")] == [True, False]


def test_a_key_that_is_no_column_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = write(tmp_path, "a.parquet", id=[1])
    with (
        queries("table flights", tmp_path) as session,
        pytest.raises(ValidationError, match=r"table flights can't be queried.*ident"),
    ):
        duplicates(session, table_of(tmp_path, [file]), ["ident"])


def test_records_of_splits_are_compared_in_every_combination(tmp_path: Path) -> None:
    splits = {
        "train": [write(tmp_path, "train.parquet", id=[1, 2, 3, 3])],
        "val": [write(tmp_path, "val.csv", id=[3, 4])],
        "test": [write(tmp_path, "test.parquet", id=[2, 3, 9])],
        "none": [],
    }
    with queries("splits", tmp_path) as session:
        overlap = shared_records(session, {name: table_of(tmp_path, files) for name, files in splits.items()}, ["id"])
        with pytest.raises(ValidationError, match="at most"):
            shared_records(session, {str(n): table_of(tmp_path, []) for n in range(MOST_SPLITS + 1)}, ["id"])
    assert overlap == Overlap(
        {"train": 3, "val": 2, "test": 3, "none": 0}, {("train", "val", "test"): 1, ("train", "test"): 1}
    )


def test_rarest_class_is_found_and_unlabelled_rows_counted_apart(tmp_path: Path) -> None:
    file = write(tmp_path, "a.parquet", label=["cat"] * 5 + ["dog"] * 2 + [None], none=[None] * 8)
    with queries("x", tmp_path) as session:
        assert balance(session, table_of(tmp_path, [file]), "label") == Balance(7, 1, 2, "dog", 2)
        assert balance(session, table_of(tmp_path, [file]), "none") == Balance(0, 8, 0)
        assert balance(session, table_of(tmp_path, []), "label") == Balance(0, 0, 0)


def moved(folder: Path, before: Rows, now: Rows, *ignored: str) -> TableDrift:
    files = [write(folder, "before.parquet", **before), write(folder, "now.parquet", **now)]
    with queries("x", folder) as session:
        reference, current = (profile(session, table_of(folder, [file])) for file in files)
        return drift("t", reference, current, ignored)


def test_drift_is_the_wasserstein_distance_in_deviations(tmp_path: Path) -> None:
    chance = random.Random(7)
    before = [chance.gauss(10, 3) for _ in range(20_000)]
    now = [chance.lognormvariate(2.3, 0.3) for _ in range(20_000)]
    mean = math.fsum(before) / len(before)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in before) / len(before))
    exact = math.fsum(abs(a - b) for a, b in zip(sorted(before), sorted(now), strict=True)) / len(before) / deviation

    (column,) = moved(tmp_path, {"x": [*before]}, {"x": [*now]}).columns

    assert column.distance == pytest.approx(exact, abs=0.01)
    assert column.method == "wasserstein"


def test_values_that_are_no_numbers_do_not_spoil_a_distance(tmp_path: Path) -> None:
    odd = [math.nan, math.inf, None]
    (column,) = moved(tmp_path, {"x": [*range(100), *odd]}, {"x": [*range(100), *odd, *odd]}).columns
    assert column.distance == pytest.approx(0, abs=0.01)


def test_categories_move_by_the_jensen_shannon_distance(tmp_path: Path) -> None:
    drifted = moved(
        tmp_path,
        {"text": ["a"] * 50 + ["b"] * 50, "few": [1] * 50 + [2] * 50, "flag": [True] * 100, "gone": ["a"] * 100},
        {"text": ["a"] * 25 + ["b"] * 75, "few": [1] * 25 + [2] * 75, "flag": [False] * 100, "gone": [None] * 100},
    )
    distances = {column.column: column.distance for column in drifted.columns}
    # SciPy's jensenshannon([.5, .5], [.25, .75])
    assert distances["text"] == distances["few"] == pytest.approx(0.18397, abs=1e-4)
    assert distances["flag"] == distances["gone"] == pytest.approx(FURTHEST)
    assert {column.method for column in drifted.columns} == {"jensen-shannon"}


def test_what_can_not_be_compared_says_why(tmp_path: Path) -> None:
    many: Rows = {
        "name": [f"n{number}" for number in range(3000)],
        "id": [*range(3000)],
        "when": [pa.scalar(0, pa.timestamp("us")).as_py()] * 3000,
        "empty": [None] * 3000,
        "kind": [1] * 3000,
    }
    drifted = moved(tmp_path, many, {**many, "kind": ["a"] * 3000, "new": [1] * 3000}, "t.id")
    skipped = {column.column: column.skipped for column in drifted.columns}
    assert set(skipped) == {*many, "new"}
    assert "more than 1,000 values" in skipped["name"]
    assert skipped["id"] == "ignored by the gate"
    assert "TIMESTAMP" in skipped["when"]
    assert skipped["empty"]
    assert skipped["kind"] == skipped["new"] == "it is not in both versions with one kind of values"


HITS = {
    "email": ["write to ana.b+c@mail.example.org, please"],
    "phone": ["+49 151 12345678", "call (0044 20 7946 0958)"],
    "iban": ["GB82 WEST 1234 5698 7654 32", "pay DE89370400440532013000 now"],
    "credit_card": ["4111 1111 1111 1111", "card 378282246310005.", "5555-5555-5555-4444", "30569309025904"],
    "us_ssn": ["123-45-6789"],
}
MISSES = {
    "email": ["a@b", "@example.org", "me at example.org"],
    "phone": ["0151 12345678", "1+2 34", "12004512345678"],
    "iban": ["GB82 WEST 1234 5698 7654 33", "XX00", "AB12 CDEF"],
    "credit_card": ["4111 1111 1111 1112", "1234567812345670", "41111111111111110000", "3782822463100050"],
    "us_ssn": ["666-45-6789", "900-45-6789", "123-00-6789", "123-45-0000", "000-12-3456"],
}


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_pattern_finds_what_it_defines_and_no_lookalikes(tmp_path: Path, name: str, form: str) -> None:
    hits, misses = HITS[name], MISSES[name]
    file = write(tmp_path, f"a.{form}", text=[*hits, *misses], n=[1] * (len(hits) + len(misses)))
    with queries("x", tmp_path, discreet=True) as session:
        scanned = scan(session, table_of(tmp_path, [file]), (), (), [name])
        clean = scan(session, table_of(tmp_path, [write(tmp_path, f"b.{form}", text=[*misses])]), (), (), [name])
    assert scanned.hits == {("text", name): len(hits)}
    assert clean.hits == {}


def test_skipped_columns_are_named_with_the_reason(tmp_path: Path) -> None:
    file = write(tmp_path, "a.parquet", text=["x"], tags=[["a@example.org"]], known=["a@example.org"], n=[1])
    with queries("x", tmp_path, discreet=True) as session:
        scanned = scan(session, table_of(tmp_path, [file]), (), ["known"], ["email"])
        narrow = scan(session, table_of(tmp_path, [file]), ["text", "n", "absent"], (), ["iban"])
    assert (scanned.scanned, scanned.hits) == (("text",), {})
    assert scanned.unscanned.keys() == {"tags", "known"}
    assert narrow.unscanned == {"n": "it holds no text", "absent": "the table has no such column"}


def test_no_error_of_a_discreet_query_quotes_a_value(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,text\n1,"ana@example.org\n2,x"x,y,z\n')
    with queries("x", tmp_path, discreet=True) as session, pytest.raises(ValidationError) as raised:
        session.rows(f"SELECT CAST(text AS INTEGER) FROM read_csv('{tmp_path}/a.csv', strict_mode=false)")
    assert "ana@" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_query_ends_when_that_is_asked_for(tmp_path: Path) -> None:
    cancel = Event()
    cancel.set()
    with queries("x", tmp_path, cancel=cancel) as session, pytest.raises(Cancelled, match="stopped"):
        session.rows("SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE a.range * b.range % 7 = 3")


def test_csv_reader_opens_only_the_version(tmp_path: Path) -> None:
    """As a file that took its process over would try: Python reads CSV, so that only the kernel is in the way."""
    (tmp_path / "view").mkdir()
    (tmp_path / "secret.csv").write_text("id\n1\n")
    with queries("x", tmp_path / "view") as session, pytest.raises(ValidationError, match="Permission denied"):
        session.relation(table_of(tmp_path / "view", [str(tmp_path / "secret.csv")]))


@pytest.mark.parametrize("code", ["import os; os.kill(os.getpid(), 9)", "print('[1]', flush=True)"], ids=str.split)
def test_dead_server_ends_the_query_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    serve_queries_by(monkeypatch, code)
    with queries("x", tmp_path) as session, pytest.raises(WorkerCrashed, match="died"):
        session.rows("SELECT 1" + " " * (1 << 20))
    monkeypatch.undo()
    with queries("x", tmp_path) as session:
        assert session.rows("SELECT 1") == [(1,)]


@pytest.mark.parametrize("code", ["os.kill(os.getpid(), 9)", "os.write(1, b'[1]')", "None"], ids=str.split)
def test_dead_reader_ends_the_query_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    read_queries_by(monkeypatch, code)
    with queries("x", tmp_path) as session, pytest.raises(WorkerCrashed, match="died"):
        session.rows("SELECT 1" + " " * (1 << 20))


def test_all_that_a_reader_starts_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds the reader's end of the connection, so that no answer ends."""
    read_queries_by(monkeypatch, "{'answer': [[os.fork() or time.sleep(300)]]}")
    with queries("x", tmp_path) as session:
        ((heir,),) = session.rows("SELECT 1")
        assert is_alive(heir)
    assert eventually(lambda: not is_alive(heir))


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_one_server_serves_each_block_its_own_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, tables = tmp_path / "log", []
    serve = "from prefect_stagegate.validations.queries import query_process\nquery_process.main()"
    serve_queries_by(monkeypatch, f"open({str(log)!r}, 'a').write('served')\n{serve}")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        tables.append(table_of(tmp_path / name, [write(tmp_path / name, "one.csv", id=[1])]))
    for table, other in (tables, tables[::-1]):
        with queries("x", table.view) as session:
            assert session.rows(session.relation(table)) == [(1,)]
            with pytest.raises(ValidationError, match="Permission denied"):
                session.relation(other)
    assert log.read_text() == "served"


def test_memory_is_bounded_and_what_needs_more_is_spilled(tmp_path: Path) -> None:
    with queries("x", tmp_path) as session:
        ((memory, spill),) = session.rows("SELECT current_setting('memory_limit'), current_setting('temp_directory')")
        assert re.fullmatch(r"[\d.]+ [MG]iB", memory)
        assert Path(spill).is_dir()
    assert not Path(spill).exists()


def test_measures_open_nothing_outside_the_version(tmp_path: Path) -> None:
    (tmp_path / "view").mkdir()
    (tmp_path / "secret.txt").write_text("hush")
    with queries("x", tmp_path / "view") as session:
        with pytest.raises(ValidationError, match="disabled by configuration"):
            session.rows(f"SELECT content FROM read_text('{tmp_path}/secret.txt')")
        with pytest.raises(ValidationError, match="locked"):
            session.rows("SET threads = 1")
