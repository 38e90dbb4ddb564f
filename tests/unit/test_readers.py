"""Each call of the table in docs/how-to/read.md reads a version."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from blake3 import blake3

from prefect_stagegate.cache import Cache
from prefect_stagegate.model import Entry

PAGE = (
    (Path(__file__).parents[2] / "docs/how-to/read.md").read_text().split("## Reading a version\n")[1].split("\n## ")[0]
)
PREPARATION = PAGE.split("```python\n")[1].split("```")[0]
CALLS = dict(re.findall(r"^\| ([^|]+) \| `([^|]+)` \|$", PAGE, re.MULTILINE))
URL = "stagegate://nycflights@production/flights"
MONTHS = {"2013-01": [1, 2], "2013-02": [3, 4]}


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the page's preparation defines, on a node that has two months of flights."""
    monkeypatch.setenv("STAGEGATE_CACHE", str(tmp_path / "cache"))
    cache = Cache.open(tmp_path / "cache")
    entries = []
    for month, delays in MONTHS.items():
        pq.write_table(pa.table({"dep_delay": delays}), tmp_path / "month.parquet")
        data = (tmp_path / "month.parquet").read_bytes()
        digest = "blake3:" + blake3(data).hexdigest()
        cache.layout.blob(digest).parent.mkdir(exist_ok=True)
        cache.layout.blob(digest).write_bytes(data)
        entries.append(Entry(f"flights/{month}.parquet", len(data), digest))
    cache.views.publish("nycflights", "sha256:" + "1" * 64, entries)
    cache.refs.put("nycflights", "production", "sha256:" + "1" * 64)
    defined: dict[str, Any] = {}
    exec(compile(PREPARATION, "read.md", "exec"), defined)
    yield defined
    duckdb.unregister_filesystem("stagegate")


def delays(read: Any) -> list[int]:
    """The column `dep_delay` of whatever a call gave, sorted."""
    if isinstance(read, bytes):
        read = pq.read_table(pa.BufferReader(read))
    if isinstance(read, ds.Dataset):
        read = read.to_table()
    if isinstance(read, pl.LazyFrame):
        read = read.collect()
    if isinstance(read, duckdb.DuckDBPyRelation):
        read = read.df()
    return sorted(read["dep_delay"].to_pylist() if isinstance(read, pa.Table) else read["dep_delay"].to_list())


@pytest.mark.parametrize("reader", CALLS)
def test_every_call_of_the_page_reads_the_version(names: dict[str, Any], reader: str) -> None:
    call = CALLS[reader]
    expected = MONTHS["2013-01"] if "2013-01" in call else [1, 2, 3, 4]
    assert delays(eval(call, names)) == expected


def test_the_page_has_a_call_for_every_reader() -> None:
    assert {reader.split(",")[0].split(" ")[0] for reader in CALLS} == {
        "pandas",
        "DuckDB",
        "pyarrow",
        "polars",
        "fsspec",
    }


def test_readers_take_a_digest_in_the_url(names: dict[str, Any]) -> None:
    for digits in ("1" * 64, "1" * 12):
        url = f"stagegate://nycflights@sha256-{digits}/flights"
        assert delays(pd.read_parquet(url)) == [1, 2, 3, 4]
        assert delays(ds.dataset(f"fsspec+{url}")) == [1, 2, 3, 4]
        assert delays(duckdb.sql(f"SELECT * FROM '{url}/*.parquet'")) == [1, 2, 3, 4]


def test_what_the_page_says_no_reader_takes_is_still_refused(names: dict[str, Any]) -> None:
    with pytest.raises(pa.ArrowInvalid, match="Unrecognized filesystem"):
        ds.dataset(URL)
    with pytest.raises(FileNotFoundError):
        pl.scan_parquet(f"{URL}/2013-01.parquet").collect()


def test_a_nearly_right_ref_is_told_by_the_readers(names: dict[str, Any]) -> None:
    wrong = URL.replace("production", "prod")
    for read in (
        lambda: pd.read_parquet(f"{wrong}/2013-01.parquet"),
        lambda: pl.read_parquet(f"{wrong}/2013-01.parquet", use_pyarrow=True),
        lambda: ds.dataset(f"fsspec+{wrong}"),
        lambda: duckdb.sql(f"SELECT * FROM '{wrong}/*.parquet'"),
    ):
        with pytest.raises(Exception, match=r"Did you mean `production`\?"):
            read()
    with pytest.raises(FileNotFoundError, match="nycflights@prod"):
        ds.dataset(wrong.removeprefix("stagegate://"), filesystem=names["files"])


def test_what_writes_by_url_is_refused(names: dict[str, Any]) -> None:
    frame = pd.DataFrame({"dep_delay": [1]})
    with pytest.raises(PermissionError, match="A version is immutable"):
        frame.to_csv(f"{URL}/new.csv")
    with pytest.raises(PermissionError, match="A version is immutable"):
        frame.to_parquet(f"{URL}/new.parquet")
    with pytest.raises(Exception, match="A version is immutable"):
        duckdb.sql(f"COPY (SELECT 1) TO '{URL}/new.csv'")
    with pytest.raises(PermissionError, match="A version is immutable"):
        ds.write_dataset(pa.table({"a": [1]}), f"fsspec+{URL}/new", format="parquet")
