"""PostgreSQL tables and queries as Parquet, on a real server."""

from __future__ import annotations

import datetime as dt
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from adbc_driver_postgresql import dbapi

from prefect_stagegate.errors import (
    AccessDenied,
    ObjectChanged,
    ObjectVanished,
    SourceError,
    SourceUnavailable,
)
from prefect_stagegate.sources import Source, open_source
from prefect_stagegate.testing.sources import ODD, listed, read
from tests.plugins.sql.postgres import OWNER, PASSWORD, Postgres, postgres
from tests.support.waiting import eventually

pytestmark = pytest.mark.system

LOGIN = {"user": OWNER, "password": PASSWORD}


@pytest.fixture(scope="module", name="server")
def _server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


def _open(server: Postgres, name: str, login: Mapping[str, str] = LOGIN, **options: Any) -> Source:
    return open_source(f"{server.url}#{name}", options, credentials=login)


def _table(source: Source, key: str) -> pa.Table:
    return pq.read_table(io.BytesIO(read(source, source.find(key))))


def _rows(server: Postgres, query: str, **options: Any) -> list[dict[str, Any]]:
    source = _open(server, "result", query=query, **options)
    try:
        return [row for key in listed(source) for row in _table(source, key).to_pylist()]
    finally:
        source.close()


def _by_adbc(server: Postgres, query: str) -> pa.Table:
    """What the naive client gives."""
    uri = server.url.replace(OWNER, f"{OWNER}:{PASSWORD}")
    with dbapi.connect(uri) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetch_arrow_table()


def _flights(server: Postgres, name: str, rows: int = 1000) -> None:
    server.run(
        f"create table {name} (id int primary key, month int, fare numeric(9, 2), carrier text)",
        f"insert into {name} select g, g % 3 + 1, g * 1.01, 'c' || g % 7 from generate_series(1, {rows}) g",
    )


def test_a_table_is_one_file_ordered_by_its_key(server: Postgres) -> None:
    server.run("create schema nyc", 'create table nyc."Tail #s" (id int primary key, tail text)')
    server.run("""insert into nyc."Tail #s" values (3, 'c'), (1, 'a'), (2, null)""")
    source = _open(server, "nyc.Tail%20%23s")
    ((key, obj),) = listed(source).items()
    assert (key, obj.pin.kind, obj.pin.strength) == ("nyc.Tail %23s.parquet", "sha256", "strong")
    assert _table(source, key).to_pydict() == {"id": [1, 2, 3], "tail": ["a", None, "c"]}
    assert [read(source, obj, 0, 4), read(source, obj, obj.size - 4)] == [b"PAR1", b"PAR1"]


@pytest.mark.parametrize("options", [{}, {"partition_by": "month"}, {"partition_by": "id", "partitions": 4}])
def test_the_same_rows_are_the_same_bytes_however_they_lie(server: Postgres, options: dict[str, Any]) -> None:
    name = f"lying_{len(options)}"
    _flights(server, name)
    first = {key: (obj.size, obj.pin) for key, obj in listed(_open(server, name, **options)).items()}
    server.run(f"update {name} set carrier = carrier where id % 5 = 0", f"vacuum full {name}")
    assert {key: (obj.size, obj.pin) for key, obj in listed(_open(server, name, **options)).items()} == first
    server.run(f"update {name} set fare = 0 where id = 1")
    changed = {key: (obj.size, obj.pin) for key, obj in listed(_open(server, name, **options)).items()}
    assert [first[key] == changed[key] for key in first].count(False) == 1


def test_without_a_key_rows_are_ordered_by_all_columns(server: Postgres) -> None:
    rows = _rows(server, "select g % 3 as a, g % 2 as b from generate_series(1, 60) g")
    assert rows == sorted(rows, key=lambda row: (row["a"], row["b"]))
    with pytest.raises(SourceError, match="can't be ordered by doc"):
        _rows(server, "select g as id, '{}'::json as doc from generate_series(1, 3) g")
    assert len(_rows(server, "select g as id, '{}'::json as doc from generate_series(1, 3) g", order_by="id")) == 3


def test_partitions_hold_each_row_once_and_are_named_by_value(server: Postgres) -> None:
    query = "select * from (values (1, 'a/b'), (2, 'ü%'), (3, ''), (4, null), (5, '..'), (6, 'it''s')) as t(id, word)"
    source = _open(server, "words", query=query, partition_by="word")
    rows = {key: _table(source, key).to_pylist() for key in listed(source)}
    assert {key: [row["id"] for row in rows[key]] for key in rows} == {
        "word=a%2Fb.parquet": [1],
        "word=%C3%BC%25.parquet": [2],
        "word=.parquet": [3],
        "word=__HIVE_DEFAULT_PARTITION__.parquet": [4],
        "word=...parquet": [5],
        "word=it%27s.parquet": [6],
    }


def test_odd_names_of_tables_and_partitions_are_file_names(server: Postgres) -> None:
    """Percent-encoded, so that each can stand in a path and none is another's."""
    values = ", ".join("({}, '{}')".format(number, name.replace("'", "''")) for number, name in enumerate(ODD))
    rows = _open(server, "odd", query=f"select * from (values {values}) as t(id, name)", partition_by="name")
    ids_by_key = {key: _table(rows, key)["id"].to_pylist() for key in listed(rows)}
    assert {unquote(key): ids for key, ids in ids_by_key.items()} == {
        f"name={name}.parquet": [number] for number, name in enumerate(ODD)
    }
    for number, name in enumerate(ODD):
        quoted = '"{}"'.format(name.replace('"', '""'))
        server.run(f"create table {quoted} (id int primary key)", f"insert into {quoted} values ({number})")
        source = _open(server, quote(f"public.{quoted}", safe=""))
        (key,) = listed(source)
        assert (unquote(key), _table(source, key)["id"].to_pylist()) == (f"public.{quoted}.parquet", [number])
        source.close()


@pytest.mark.parametrize("kind", ["int", "bigint", "date", "timestamp", "double precision", "numeric(9, 2)"])
def test_ranges_hold_every_row_once(server: Postgres, kind: str) -> None:
    value = "date '2024-01-01' + g" if kind in ("date", "timestamp") else "g"
    query = f"select g as id, nullif({value}, {value.replace('g', '7')})::{kind} as at from generate_series(1, 100) g"
    source = _open(server, "ranges", query=query, partition_by="at", partitions=3)
    keys = list(listed(source))
    assert keys == [f"at-0000{number}-of-00003.parquet" for number in (1, 2, 3)]
    ids = [_table(source, key)["id"].to_pylist() for key in keys]
    assert sorted(chain(*ids)) == list(range(1, 101))
    assert all(len(part) > 30 for part in ids)


def test_partitions_are_of_one_snapshot_while_a_writer_commits(server: Postgres) -> None:
    _flights(server, "moving")
    total = server.run("select sum(id) from moving")

    def write() -> None:
        server.run(
            "update moving set id = id + 100000",
            "insert into moving values (5, 9, 0, 'late')",
            "delete from moving where month = 2",
        )
        server.run("delete from moving where month = 9")

    source, keys = _open(server, "moving", partition_by="month"), []
    for obj in source.list():
        keys.append(obj.key)
        write()
    assert len(keys) == 3
    assert str(sum(sum(_table(source, key)["id"].to_pylist()) for key in keys)) == total
    _flights(server, "naive")
    naive = 0  # a statement for each partition, each in a transaction of its own
    for month in (1, 2, 3):
        naive += int(server.run(f"select coalesce(sum(id), 0) from naive where month = {month}"))
        server.run("update naive set id = id + 100000", "delete from naive where month = 2")
    assert str(naive) != total
    later = listed(source)
    assert list(later) == ["month=1.parquet", "month=3.parquet"]
    with pytest.raises(ObjectVanished):
        source.find("month=2.parquet")


def test_numeric_is_a_decimal_and_never_an_opaque_text(server: Postgres) -> None:
    (naive,) = _by_adbc(server, "select 12345678901234567.89::numeric(19, 2) as exact").schema
    assert "opaque[storage_type=string" in str(naive.type)
    (row,) = _rows(server, "select 12345678901234567.89::numeric(19, 2) as exact, (-0.5)::numeric(3, 3) as small")
    assert row == {"exact": Decimal("12345678901234567.89"), "small": Decimal("-0.500")}
    with pytest.raises(SourceError, match=r"column 'x' is numeric without precision.*option `numeric:"):
        _rows(server, "select 1.5::numeric as x")
    with pytest.raises(SourceError, match=r"column 'x' is numeric\(50, 2\)"):
        _rows(server, "select 1.5::numeric(50, 2) as x")
    assert _rows(server, "select 1.25::numeric as x", numeric={"x": "decimal(9, 3)"}) == [{"x": Decimal("1.250")}]
    assert _rows(server, "select 1.25::numeric as x", numeric="double") == [{"x": 1.25}]
    assert _rows(server, "select 1.250::numeric as x", numeric="text") == [{"x": "1.250"}]
    for value in ("'NaN'", "1.23456", "1e12"):
        with pytest.raises(SourceError, match="Column 'x' can't be written"):
            _rows(server, f"select {value}::numeric as x", numeric={"x": "decimal(9, 3)"})


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("interval '1 day'", "interval.*extract"),
        ("'12.50'::money", "money"),
        ("4000000000::oid", "oid"),
        ("'10.0.0.1'::inet", "inet"),
        ("array[1.5::numeric(5, 1)]", "numeric"),
        ("row(1, 2)", "record"),
        ("array['{}'::jsonb]", "jsonb"),
        ("'[1,2)'::int4range", "unnamed"),
        ("'<a/>'::xml", "xml"),
    ],
)
def test_what_parquet_lacks_is_refused_by_name(server: Postgres, value: str, problem: str) -> None:
    with pytest.raises(SourceError, match=f"column 'odd' is of the type.*{problem}"):
        _rows(server, f"select 1 as id, {value} as odd", order_by="id")


def test_adbc_s_own_types_fit_no_parquet_or_no_reader(server: Postgres) -> None:
    with pytest.raises(pa.ArrowNotImplementedError, match="interval"):
        pq.write_table(_by_adbc(server, "select interval '1 day' as odd"), io.BytesIO())
    naive = _by_adbc(server, "select '12.50'::money as paid, '10.0.0.1'::inet as place")
    assert naive.to_pylist() == [{"paid": 1250, "place": b"\x02\x20\x00\x04\x0a\x00\x00\x01"}]


@pytest.mark.parametrize("kind", ["date", "timestamp", "timestamptz"])
def test_infinite_time_is_refused(server: Postgres, kind: str) -> None:
    for sign in ("", "-"):
        with pytest.raises(SourceError, match=r"'at'.*infinite"):
            _rows(server, f"select '{sign}infinity'::{kind} as at")
        with pytest.raises(SourceError, match=r"'at'.*infinite"):
            _rows(server, f"select array['{sign}infinity'::{kind}] as at")


def test_arrays_of_several_dimensions_are_refused(server: Postgres) -> None:
    assert _rows(server, "select '{1,2}'::int[] as a") == [{"a": [1, 2]}]
    with pytest.raises(SourceError, match="Column 'a' holds arrays of several dimensions"):
        _rows(server, "select '{{1,2},{3,4}}'::int[] as a")


def test_other_types_come_as_they_are(server: Postgres) -> None:
    source = _open(
        server,
        "types",
        query="select true as b, 1::smallint as s, 2.5::real as f, 'x'::varchar as v, '\\xff00'::bytea as raw, "
        "date '2024-02-29' as d, timestamp '0044-03-15 12:00 BC' as old, time '10:00' as t, "
        """'{"a": 1}'::jsonb as doc, array[1, null, 3] as many, timestamptz '2024-01-01 00:00+02' as at""",
        order_by="s",
    )
    listed(source)
    table = _table(source, "types.parquet")
    assert table["old"].cast(pa.string()).to_pylist() == ["-0043-03-15 12:00:00.000000"]
    (row,) = table.drop(["old"]).to_pylist()
    noon = dt.datetime(2023, 12, 31, 22, tzinfo=dt.UTC)
    assert row == {
        "b": True,
        "s": 1,
        "f": 2.5,
        "v": "x",
        "raw": b"\xff\x00",
        "d": dt.date(2024, 2, 29),
        "t": dt.time(10),
        "doc": '{"a": 1}',
        "many": [1, None, 3],
        "at": noon,
    }


def test_an_empty_table_is_a_file_with_its_columns(server: Postgres) -> None:
    server.run("create table nothing (id int primary key, fare numeric(9, 2))")
    source = _open(server, "nothing")
    assert listed(source)
    assert _table(source, "nothing.parquet").schema.names == ["id", "fare"]


def test_mistakes_are_named(server: Postgres) -> None:
    _flights(server, "planes", 3)
    for name, options, said in (
        ("plane", {}, "no table 'plane': did you mean 'planes'"),
        ("planes", {"order_by": "fair"}, "no column 'fair': did you mean 'fare'"),
        ("planes", {"partition_by": "carrier", "partitions": 2}, "text - text"),
        ("q", {"query": "select nope from planes"}, 'column "nope" does not exist'),
        ("q", {"query": "select 1) x; drop table planes; select * from (select 1"}, "multiple commands"),
        ("q", {"query": "with w as (delete from planes returning *) select * from w"}, "WITH clause|read-only"),
        ("q", {"query": "select id, id from planes"}, "'id' comes twice|ambiguous"),
        ("q", {"query": "select 1/(3 - id) as x from planes"}, "division by zero"),
    ):
        with pytest.raises(SourceError, match=said):
            listed(_open(server, name, **options))
    assert server.run("select count(*) from planes") == "3"


def test_nothing_can_be_written(server: Postgres) -> None:
    _flights(server, "kept", 3)
    server.run("create function wipe() returns int language sql as 'delete from kept returning 1'")
    with pytest.raises(SourceError, match="read-only transaction"):
        _rows(server, "select wipe() as x")
    assert server.run("select count(*) from kept") == "3"


def test_refused_logins_are_told_without_the_password(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    for login in (
        {"user": OWNER, "password": "wrong-secret"},
        {"user": OWNER},
        {"user": "nobody-here", "password": "wrong-secret"},
    ):
        with pytest.raises(AccessDenied) as caught:
            listed(_open(server, "t", login))
        assert "wrong-secret" not in str(caught.value)
        assert "pgpass" in caught.value.hint
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert listed(_open(server, "q", {}, query="select 1 as x"))


def test_a_user_without_the_right_is_told(server: Postgres) -> None:
    _flights(server, "private", 3)
    server.run("create role guest login password 'guest-secret'")
    url = server.url.replace(OWNER, "guest")
    with pytest.raises(AccessDenied, match="permission denied for table private"):
        listed(open_source(f"{url}#private", credentials={"password": "guest-secret"}))


def test_a_statement_ends_by_its_timeout(server: Postgres) -> None:
    with pytest.raises(SourceError, match="took too long") as caught:
        _rows(server, "select pg_sleep(60)::text as x", statement_timeout="200ms")
    assert not caught.value.retryable
    with pytest.raises(SourceError, match="invalid value for parameter"):
        _rows(server, "select 1 as x", statement_timeout="soon")


def test_closing_stops_what_another_thread_asked(server: Postgres) -> None:
    source = _open(server, "slow", query="select g, pg_sleep(0.01)::text as x from generate_series(1, 100000) g")
    ended: list[BaseException] = []

    def work() -> None:
        try:
            listed(source)
        except SourceError as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    running = (
        "select count(*) from pg_stat_activity where state = 'active' and pid <> pg_backend_pid() "
        "and query like '%generate_series(1, 100000)%'"
    )
    assert eventually(lambda: server.run(running) == "1")
    source.close()
    thread.join(60)
    assert ended
    assert eventually(lambda: server.run(running) == "0")


def test_a_server_that_is_gone_may_be_asked_again(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable):
        listed(open_source("postgresql://127.0.0.1:1/db#t", credentials=LOGIN))
    with postgres() as server:
        source = _open(server, "slow", query="select g, pg_sleep(0.001)::text as x from generate_series(1, 1000000) g")
        threading.Timer(1, os.kill, (server.pid, signal.SIGQUIT)).start()
        with pytest.raises(SourceUnavailable) as caught:
            listed(source)
        assert caught.value.retryable
        source.close()


def test_object_listed_by_another_node_is_rendered_and_compared(server: Postgres) -> None:
    _flights(server, "shared", 100)
    (obj,) = listed(_open(server, "shared")).values()
    assert read(_open(server, "shared"), obj)[:4] == b"PAR1"
    server.run("update shared set month = 7")
    with pytest.raises(ObjectChanged):
        read(_open(server, "shared"), obj)


def test_a_staging_fetches_only_the_partitions_that_changed(
    server: Postgres, tmp_path: Path, run_stagegate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _flights(server, "staged", 3000)
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        f"stagegate: 1\ndataset: staged\nsources:\n  - url: {server.url}#staged\n    into: flights/\n"
        "    options: {partition_by: month}\n"
    )
    env = {"PGPASSWORD": PASSWORD}
    for change, fetched in (("", 3), ("", 0), ("update staged set fare = 1 where id = 1", 1)):
        if change:
            server.run(change)
        dry = run_stagegate("stage", spec, "--dry-run", env=env)
        assert (dry.returncode, dry.stdout.count("fetch ")) == (0, fetched), dry.stdout + dry.stderr
        assert run_stagegate("stage", spec, env=env).returncode == 0
    other = env | {"STAGEGATE_CACHE": str(tmp_path / "other")}
    assert run_stagegate("stage", "staged@latest", env=other).returncode == 0  # another node renders the same bytes
    server.run("update staged set fare = 2 where id = 2")
    third = run_stagegate("stage", "staged@latest", env=env | {"STAGEGATE_CACHE": str(tmp_path / "third")})
    assert (third.returncode, "flights/month=3.parquet" in third.stderr) == (3, True), third.stderr
    shown = run_stagegate("show", "staged", "--rows").stdout
    assert "flights/month=1.parquet" in shown
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert PASSWORD.encode() not in everything
    assert not [path for path in (tmp_path / "cache" / "ingest").iterdir() if "spool" in path.name]


LIMITED = """
import resource, signal, sys
from prefect_stagegate.sources import open_source
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
source = open_source(sys.argv[1], {"query": "select g, sha512(g::text::bytea) from generate_series(1, 100000) g"})
try:
    list(source.list())
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_result_that_finds_no_room_is_told(server: Postgres) -> None:
    command = [sys.executable, "-c", LIMITED, f"{server.url}#big"]
    env = {**os.environ, "PGPASSWORD": PASSWORD}
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.stdout.startswith("SourceError The result can't be stored in /"), result.stdout + result.stderr
    assert "File too large" in result.stdout


MEASURED = """
import re, sys
from prefect_stagegate.sources import open_source
from prefect_stagegate.sources.adapter import read_pieces
source = open_source(sys.argv[1], {"query": sys.argv[2], "order_by": []})
import pyarrow.parquet, adbc_driver_postgresql.dbapi
def peak():  # of this program: ru_maxrss begins with what its parent had
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
(one,) = source.list()
read = sum(len(piece) for piece in read_pieces(source, one, 0, one.size))
assert read == one.size
print(one.size >> 20, (peak() - before) >> 10)
"""


def test_memory_does_not_grow_with_the_rows(server: Postgres) -> None:
    """Over a million rows that do not compress: far more than what the process may grow by."""
    noise = " || ".join(f"sha512((g || '{word}')::bytea)" for word in "abc")
    query = f"select g as id, {noise} as noise from generate_series(1, 1200000) g"
    command = [sys.executable, "-c", MEASURED, f"{server.url}#big", query]
    result = subprocess.run(
        command, env={**os.environ, "PGPASSWORD": PASSWORD}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    file, grown = map(int, result.stdout.split())
    assert file > 200
    assert grown < 128  # MiB: a batch of 16, its copy, and the writer's buffers
