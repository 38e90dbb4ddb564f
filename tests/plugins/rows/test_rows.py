"""`stagegate diff --rows` on versions of a real catalog: what is read, counted, shown, refused and kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from prefect_stagegate.errors import NoSpace, UsageError, ValidationError, WorkerCrashed
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.rows import row_comparing
from prefect_stagegate.plugins.rows.row_comparing import compare_versions
from tests.support.query_readers import serve_queries_by
from tests.support.scenario import Scenario

TRIPS = {"files": "trips/**", "pii": ["name"]}
GATES = {"production": {"require": ["license"]}}
JANUARY = {"id": [1, 2, 3], "fare": [1.5, 2.5, None], "name": ["Ada", "Ben", "Cy"]}


@pytest.fixture
def things(tmp_path: Path) -> Scenario:
    return Scenario(tmp_path, gates=GATES, contract={"tables": {"trips": TRIPS}})


def deliver(things: Scenario, files: Mapping[str, Any], **changes: Any) -> str:
    """Replace the source's files, and stage; a mapping is a table, other texts are files as they are."""
    for path in sorted(things.nas.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    for name, content in files.items():
        path = things.nas / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif path.suffix == ".feather":
            feather.write_feather(pa.table(content), path)
        else:
            parquet.write_table(pa.table(content), path)
    return things.stage(**changes).digest


def compared(things: Scenario, old: str, new: str, *key: str, cache: str = "") -> dict[str, Any]:
    """What the comparison says of the one table."""
    before, now = (Address(things.dataset, digest) for digest in (old, new))
    (table,) = compare_versions(things.node(cache=cache), before, now, key).values["row_changes"]["tables"]
    assert not list((things.folder / (cache or "cache") / "ingest").iterdir())
    found: dict[str, Any] = table
    return found


def counts(table: Mapping[str, Any]) -> tuple[Any, ...]:
    return table["added"], table["gone"], table["changed"]


def test_only_files_that_differ_are_read(things: Scenario) -> None:
    """The equal ones are no Parquet at all, and one of them has another path by now."""
    same = {"trips/a.parquet": b"damaged", "trips/b.parquet": b"moved"}
    old = deliver(things, {**same, "trips/c.parquet": JANUARY})
    moved = {"trips/a.parquet": b"damaged", "trips/z.parquet": b"moved"}
    new = deliver(things, {**moved, "trips/c.parquet": {**JANUARY, "id": [1, 2, 4]}})
    table = compared(things, old, new)
    assert (counts(table), table["files"], table["same_files"]) == ((1, 1, None), (1, 1), 2)


def test_versions_without_differing_rows_read_nothing(things: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_queries_by(monkeypatch, "raise SystemExit(1)")
    old = deliver(things, {"trips/a.parquet": JANUARY, "read.me": b"one"})
    new = deliver(things, {"trips/b.parquet": JANUARY, "read.me": b"two"})
    assert counts(compared(things, old, new)) == (0, 0, None)
    assert counts(compared(things, old, new, "no such")) == (0, 0, None)


def test_key_tells_changed_rows_by_column(things: Scenario) -> None:
    old = deliver(things, {"trips/a.parquet": JANUARY})
    later = {"id": [2, 3, 4], "fare": [9.5, None, 1.0], "name": ["Bo", "Cy", "Di"]}
    table = compared(things, old, deliver(things, {"trips/a.parquet": later}), "id")
    assert counts(table) == (1, 1, 1)
    assert table["columns"] == {"fare": 1, "name": 1}
    changed, gone, added = table["samples"]
    assert changed["values"] == {"id": "2"}
    assert changed["changes"] == {"fare": ("2.5", "9.5"), "name": ("(masked)", "(masked)")}
    assert gone["values"] == {"id": "1", "fare": "1.5", "name": "(masked)"}
    assert added["values"]["name"] == "(masked)"


def test_personal_values_are_in_no_sample(things: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither by rows nor as a key, nor in any column where a name under `pii` may be misspelled."""
    old = deliver(things, {"trips/a.parquet": JANUARY})
    new = deliver(things, {"trips/a.parquet": {**JANUARY, "name": ["Eve", "Ben", "Dan"]}})
    for key in ([], ["--key", "NAME"], ["--key", "id"]):
        for form in ([], ["--json"]):
            assert things.run("diff", f"things@{old}", f"things@{new}", "--rows", *key, *form) == 0
    shown = capsys.readouterr().out
    assert "(masked)" in shown
    assert not [name for name in ("Ada", "Eve", "Cy", "Dan") if name in shown]
    contract = {"tables": {"trips": {**TRIPS, "pii": ["nmae"]}}}
    spec = things.spec_file(contract=contract)
    assert things.run("policy", "adopt", str(spec), "--reason", "another name") == 0
    samples = compared(things, old, new)["samples"]
    assert {value for sample in samples for value in sample["values"].values()} == {"(masked)", "null"}


@pytest.mark.parametrize("key", ["id", "fare"])
def test_key_that_matches_no_single_row_is_refused(things: Scenario, key: str) -> None:
    old = deliver(things, {"trips/a.parquet": JANUARY})
    new = deliver(things, {"trips/a.parquet": {**JANUARY, "id": [1, 1, 3]}})
    with pytest.raises(UsageError, match="id is not unique in 2 rows" if key == "id" else "fare has no value in 1 row"):
        compared(things, old, new, key)


def test_key_of_no_table_is_refused(things: Scenario) -> None:
    old, new = (deliver(things, {"trips/a.parquet": {"id": [number]}}) for number in (1, 2))
    with pytest.raises(UsageError, match="No table that differs has the key nr in both versions"):
        compared(things, old, new, "nr")


def test_contract_without_tables_is_refused(things: Scenario) -> None:
    bare = Scenario(things.folder, "bare")
    old, new = (deliver(bare, {"a.parquet": {"id": [number]}}) for number in (1, 2))
    with pytest.raises(UsageError, match="The contract of bare has no table"):
        compared(bare, old, new)


def test_other_types_and_columns_are_said_and_not_counted(things: Scenario) -> None:
    old = deliver(things, {"trips/a.parquet": {"id": [1, 2], "fare": [1, 2], "old": [0, 0]}})
    new = deliver(things, {"trips/a.parquet": {"id": ["1", "2"], "fare": [1.0, 2.5], "new": [0, 0]}})
    table = compared(things, old, new)
    assert counts(table) == (1, 1, None)
    assert table["notes"] == (
        "column old is gone, so it is not compared",
        "column new is new, so it is not compared",
        "column id: bigint before, varchar now; compared as varchar",
        "column fare: bigint before, double now; compared as double",
    )


def test_types_that_nothing_holds_are_an_error(things: Scenario) -> None:
    old = deliver(things, {"trips/a.parquet": {"id": [1], "box": [{"x": 1}]}})
    new = deliver(things, {"trips/a.parquet": {"id": [1], "box": [[1]]}})
    with pytest.raises(ValidationError, match="the rows of table trips can't be queried"):
        compared(things, old, new, "id")


def test_nested_values_are_compared(things: Scenario) -> None:
    old = deliver(things, {"trips/a.parquet": {"id": [1, 2], "box": [{"x": [1, None]}, {"x": []}]}})
    new = deliver(things, {"trips/a.parquet": {"id": [1, 2], "box": [{"x": [1, None]}, {"x": None}]}})
    assert counts(compared(things, old, new, "id")) == (0, 0, 1)
    assert counts(compared(things, old, new)) == (1, 1, None)


def test_csv_is_read_by_the_declared_dialect(things: Scenario) -> None:
    dialect = {"separator": ";", "decimal": ",", "dates": "%d.%m.%Y", "encoding": "latin-1", "null": ["", "k.A."]}
    contract = {"tables": {"trips": {"files": "*.csv", "csv": dialect}}}
    before = 'id;"a ""b"", c";day\r\n1;1,5;01.04.2026\r\n2;k.A.;02.04.2026\r\n'.encode("latin-1")
    now = 'id;"a ""b"", c";day\n1;1,50;1.4.2026\n2;"Zürich; Süd";02.04.2026\n'.encode("latin-1")
    old, new = (deliver(things, {"t.csv": text}, contract=contract) for text in (before, now))
    table = compared(things, old, new, "id")
    assert counts(table) == (0, 0, 2)
    assert table["columns"] == {'a "b", c': 2}  # text in one version, so text in both; the days are equal


def test_number_formats_of_csv_are_no_change(things: Scenario) -> None:
    old = deliver(things, {"trips/a.csv": b"id,fare\n1,2\n2,3\n"})
    table = compared(things, old, deliver(things, {"trips/a.csv": b"id,fare\n2,3.0\n1,2.50\n"}), "id")
    assert (counts(table), table["columns"]) == ((0, 0, 1), {"fare": 1})


def test_formats_compare_with_each_other(things: Scenario) -> None:
    rows = {"id": [1, 2], "word": ["a", None]}
    old = deliver(things, {"trips/a.feather": rows})
    new = deliver(things, {"trips/a.jsonl": b'{"id": 1, "word": "a"}\n{"id": 2, "word": "b"}\n'})
    assert counts(compared(things, old, new, "id")) == (0, 0, 1)
    assert counts(compared(things, new, deliver(things, {"trips/a.parquet": rows}))) == (1, 1, None)


def test_folders_of_partitions_are_columns(things: Scenario) -> None:
    old = deliver(things, {"trips/year=2025/a.parquet": {"id": [1]}, "trips/year=2026/a.parquet": {"id": [2]}})
    new = deliver(things, {"trips/year=2025/a.parquet": {"id": [2]}, "trips/year=2026/a.parquet": {"id": [1]}})
    assert counts(compared(things, old, new)) == (2, 2, None)
    assert counts(compared(things, old, new, "id")) == (0, 0, 2)


def test_no_rows_and_no_files(things: Scenario) -> None:
    empty = deliver(things, {"trips/a.csv": b"id,word\n"})
    full = deliver(things, {"trips/a.csv": b"id,word\n1,a\n1,a\n"})
    none = deliver(things, {"other.csv": b"x\n1\n"})
    assert counts(compared(things, empty, full)) == (2, 0, None)
    assert counts(compared(things, full, empty)) == (0, 2, None)
    assert counts(compared(things, none, full)) == (2, 0, None)
    assert counts(compared(things, full, none)) == (0, 2, None)
    with pytest.raises(UsageError, match="id is not unique"):
        compared(things, none, full, "id")


def test_version_of_another_node_is_fetched(things: Scenario) -> None:
    digests = []
    for number in (1, 2):
        (folder := things.nas / f"v{number}/trips").mkdir(parents=True)
        parquet.write_table(pa.table({"id": [number]}), folder / "a.parquet")
        digests.append(things.stage(sources=[{"url": str(folder.parent)}]).digest)
    assert counts(compared(things, digests[0], digests[1], cache="other")) == (1, 1, None)


def test_damaged_file_is_no_difference(things: Scenario) -> None:
    old = deliver(things, {"trips/a.parquet": JANUARY})
    with pytest.raises(ValidationError, match=r"the rows of table trips can't be queried: \w+Exception"):
        compared(things, old, deliver(things, {"trips/a.parquet": b"PAR1 Ada"}))


def test_full_scratch_folder_is_said(things: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_comparing, "MOST_MEMORY", 64 << 20)
    monkeypatch.setenv("STAGEGATE_VALIDATION_SPILL", "64MiB")
    many = range(3_000_000)
    old, new = (
        deliver(things, {"trips/a.parquet": {"id": [f"{number:030}{side}" for number in many]}}) for side in "ab"
    )
    with pytest.raises(NoSpace, match="No space left to compare the rows of table trips"):
        compared(things, old, new)


@pytest.mark.parametrize(
    "code", ["import os; os.kill(os.getpid(), 9)", "print('[1]')", "import time; time.sleep(60)"], ids=str.split
)
def test_dead_worker_says_nothing_about_the_data(things: Scenario, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    old, new = (deliver(things, {"trips/a.parquet": {"id": [number]}}) for number in (1, 2))
    serve_queries_by(monkeypatch, code)
    monkeypatch.setenv("STAGEGATE_VALIDATION_TIMEOUT", "2")
    with pytest.raises(WorkerCrashed, match=r"the rows of table trips (died|took too long)"):
        compared(things, old, new)
    assert not list((things.folder / "cache/ingest").iterdir())


def test_collection_removes_what_a_killed_comparison_left(things: Scenario) -> None:
    old, new = (deliver(things, {"trips/a.parquet": {"id": [number]}}) for number in (1, 2))
    code = (
        "import sys\nfrom prefect_stagegate.cli import main\n"
        "from prefect_stagegate.validations.queries import query_server\n"
        "query_server.COMMAND = (sys.executable, '-c', 'import os; os.kill(os.getppid(), 9)')\n"
        f"main(['diff', 'things@{old}', 'things@{new}', '--rows'])"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **things.environment()}, check=False, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL
    (left,) = (things.folder / "cache/ingest").iterdir()
    assert things.run("gc") == 0
    assert left.exists()  # it might not be locked yet
    os.utime(left, (0, 0))
    assert things.run("gc") == 0
    assert not left.exists()


def test_worker_reads_no_file_beside_its_versions(things: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file that took it over would try; CSV is read in Python, so that only the kernel is in the way."""
    secret = things.folder / "secret.csv"
    secret.write_text("id\n1\n")
    old, new = (deliver(things, {"trips/a.csv": b"id\n%d\n" % number}) for number in (1, 2))
    pair = row_comparing._pair

    def elsewhere(*arguments: Any) -> Any:
        made = pair(*arguments)
        return replace(made, old=[str(secret)])  # an absolute path stays one below a view

    monkeypatch.setattr(row_comparing, "_pair", elsewhere)
    with pytest.raises(ValidationError, match="can't be queried"):
        compared(things, old, new)


def test_command_prints_counts_and_samples(things: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    deliver(things, {"trips/a.parquet": JANUARY})
    deliver(things, {"trips/a.parquet": {**JANUARY, "fare": [1.5, 2.5, 7.0]}})
    versions = ("things@latest~1", "things")
    capsys.readouterr()
    assert things.run("diff", *versions, "--rows", "--key", "id") == 0
    text = capsys.readouterr().out
    assert "trips (by id)  0" in text
    assert "fare: null → 7.0" in text
    assert things.run("diff", *versions, "--rows", "--json") == 0
    assert json.loads(capsys.readouterr().out)["row_changes"]["tables"][0]["added"] == 1
    assert things.run("diff", *versions, "--key", "id") == 2
    assert things.run("diff", *versions, "--rows", "--key", "name,nr") == 2


def test_key_of_two_columns_one_with_a_comma(things: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"id": [1, 1, 2], "day, local": [1, 2, 1]}
    deliver(things, {"trips/a.parquet": {**columns, "fare": [1.5, 2.5, 3.5]}})
    deliver(things, {"trips/a.parquet": {**columns, "fare": [1.5, 7.0, 3.5]}})
    capsys.readouterr()
    words = ("diff", "things@latest~1", "things", "--rows", "--json")
    assert things.run(*words, "--key", "id", "--key", "day, local") == 0
    (table,) = json.loads(capsys.readouterr().out)["row_changes"]["tables"]
    assert (table["key"], table["changed"]) == (["id", "day, local"], 1)
    assert things.run(*words, "--key", "id,day, local") == 2


def test_report_shows_what_was_counted_without_values(things: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    deliver(things, {"trips/a.parquet": JANUARY})
    things.promote()
    deliver(things, {"trips/a.parquet": {**JANUARY, "fare": [1.5, 2.5, 7.25]}})
    things.run("check", "things", "--gate", "production")
    capsys.readouterr()
    things.run("decisions", "things", "--json")
    newest = json.loads(capsys.readouterr().out)[-1]["id"]
    things.run("report", newest, "--json")
    assert "row_changes" not in json.loads(capsys.readouterr().out)
    assert things.run("diff", "things@production", "things", "--rows", "--key", "id") == 0
    assert "7.25" in capsys.readouterr().out
    things.run("report", newest, "--json")
    shown = capsys.readouterr().out
    assert json.loads(shown)["row_changes"]["tables"][0]["columns"] == {"fare": 1}
    kept = [path for path in (things.folder / "catalog").rglob("*.json") if "rows.changes" in str(path)]
    things.run("report", newest, "--markdown", str(things.folder / "r.md"))
    assert "trips: 0 added, 0 gone, 1 changed" in (things.folder / "r.md").read_text()
    things.run("report", newest)
    assert "row changes trips: 0 added, 0 gone, 1 changed" in " ".join(capsys.readouterr().out.split())
    assert len(kept) == 1
    assert "7.25" not in shown + kept[0].read_text()
