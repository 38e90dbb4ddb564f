from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefect_stagegate.model import Entry, Outcome
from prefect_stagegate.spec import ContractSpec
from prefect_stagegate.validations import validate
from prefect_stagegate.validations.files.facts import UnreadableFile
from prefect_stagegate.validations.files.file_probes import ProbedFiles, probe_files
from prefect_stagegate.validations.files.probes import OPENERS, TABLE_ONLY, parquet_pages, table_probe

PROBES = {**OPENERS, **TABLE_ONLY, "parquet-pages": parquet_pages}

FRAME = pd.DataFrame({"x": range(10_000), "y": [str(number) for number in range(10_000)]})


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    path = tmp_path / "t.parquet"
    FRAME.to_parquet(path, row_group_size=2_500, index=False)
    return path


def problem(name: str, path: Path) -> str:
    with pytest.raises(UnreadableFile) as caught:
        PROBES[name](path)
    assert caught.value.fix
    return caught.value.problem


def test_a_good_file_tells_its_columns_and_rows(parquet: Path) -> None:
    for name in ("parquet", "parquet-pages"):
        facts = PROBES[name](parquet)
        assert facts.schema is not None
        assert (facts.schema.names, facts.rows) == (["x", "y"], 10_000)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda _: b"", "empty (0 bytes)"),
        (lambda data: data[:1000], "truncated: the Parquet footer is missing after 1,000 bytes"),
        (lambda data: data[:6], "truncated"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: b"PK\x03\x04" + data[4:], "it is no Parquet file"),
        (lambda data: data[:-8] + b"\xff\xff\xff\x7f" + b"PAR1", "truncated: the footer claims"),
        (lambda data: data[:-300] + b"\xff" * 292 + data[-8:], "the Parquet footer can't be read"),
        (lambda data: data[:4] + data[20_000:], "bytes are missing: column"),
    ],
)
def test_a_spoilt_parquet_file_is_refused_with_the_reason(
    parquet: Path, spoil: Callable[[bytes], bytes], reason: str
) -> None:
    parquet.write_bytes(spoil(parquet.read_bytes()))
    assert reason in problem("parquet", parquet)


def test_corrupt_pages_are_found_by_the_probe_that_reads_them(parquet: Path) -> None:
    data = bytearray(parquet.read_bytes())
    data[100:2_000] = b"\xff" * 1_900
    parquet.write_bytes(data)
    PROBES["parquet"](parquet)
    assert "corrupt" in problem("parquet-pages", parquet)


def test_a_file_of_nothing_but_columns_is_whole(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": pa.array([], pa.int64())}), tmp_path / "t.parquet")
    assert PROBES["parquet"](tmp_path / "t.parquet").rows == 0


def test_csv_tells_its_columns_and_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("name,speed\nJFK,NA\n'EWR',1.5\n")
    facts = PROBES["csv"](path)
    assert facts.schema is not None
    assert [(field.name, str(field.type)) for field in facts.schema] == [("name", "string"), ("speed", "double")]
    assert facts.rows == 2


def test_csv_row_that_looks_like_a_comment_counts(tmp_path: Path) -> None:
    """Left to guess, DuckDB takes the row for a comment and leaves it out, so no check would look at it."""
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n#-5,9\n3,4\n")
    facts = PROBES["csv"](path)
    assert facts.schema is not None
    assert (str(facts.schema.field("a").type), facts.rows) == ("string", 3)


def test_csv_begins_with_its_header(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("export of 2013\na,b\n1,2\n3,4\n")
    assert "can't be read as CSV" in problem("csv", path)


def test_tsv_is_known_by_its_name_in_capitals(tmp_path: Path) -> None:
    path = tmp_path / "T.TSV"
    path.write_text("a\tb\n1\t2\n")
    facts = PROBES["csv"](path)
    assert facts.schema is not None
    assert facts.schema.names == ["a", "b"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [('3,"4', "a quote is never closed"), ("3,4,5", "expected 2 columns, found 3"), ("3", "2 columns, found 1")],
)
def test_csv_with_a_broken_row_is_refused_with_its_line(tmp_path: Path, row: str, reason: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "1,2\n" * 50_000 + f"{row}\n")
    message = problem("csv", path)
    assert "can't be read as CSV: line 50,002: " in message
    assert reason in message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Flights of 2013\na,b\n1,2\n", "line 2: expected 1 column, found 2"),
        ("a,b\n#1,2\n# 3\n5,6\n", "line 3: expected 2 columns, found 1"),
        ("a,b,c\n1,2,3\n1,2\n1,2,3,4\n", "line 3: expected 3 columns, found 2"),
        ('a,b\n1,"2\n3\n', "line 2: a quote is never closed"),
        ("\n\na,b\n1,2\n", "its first line is blank"),
    ],
)
def test_no_line_of_a_csv_is_left_out_without_a_word(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    assert line in problem("csv", path)


def test_reason_of_a_broken_csv_holds_no_rows_and_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "1,2\n" * 50_000 + '1,"open\n' + "secret,row\n" * 100)
    message = problem("csv", path)
    assert "secret" not in message
    assert str(tmp_path) not in message


@pytest.mark.parametrize("name", ["t.csv.gz", "t.tsv.gz", "t.jsonl.gz"])
def test_compressed_text_with_a_wrong_checksum_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    data = bytearray(gzip.compress(b'{"a": 1}\n' * 1_000))
    data[-6] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UnreadableFile, match="it can't be read as gzip: CRC check failed"):
        PROBES[table_probe(name)](path)


@pytest.mark.parametrize("name", ["T.TSV", "t.tsv.gz"])
def test_tabs_separate_by_the_end_of_the_name(tmp_path: Path, name: str) -> None:
    text = b"a,b\tc\n1\t2\n"
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    facts = PROBES["csv"](tmp_path / name)
    assert facts.schema is not None
    assert facts.schema.names == ["a,b", "c"]


def test_json_keys_that_few_lines_have_are_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(f'{{"key{number % 300}": 1}}\n' for number in range(3_000)))
    facts = PROBES["json-rows"](path)
    assert facts.schema is not None
    assert (len(facts.schema), facts.rows) == (300, 3_000)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1}\n{"a":\n', "line 2 is no JSON value"),
        ('{"a": 1}\n\n[1]\n', "line 3 is no JSON object"),
        ('{"": 1}\n', "its objects have no key, an empty one"),
        ('{"a": "\\ud800"}\n', "no low surrogate in string"),
    ],
)
def test_json_lines_are_refused_with_the_line(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(text)
    with pytest.raises(UnreadableFile, match=reason):
        PROBES["json-rows"](path)


# ── which files are probed, and what becomes of them ────────────────────────────────────────────────────────────


def probed(view: Path, contract: dict[str, object]) -> ProbedFiles:
    return probe_files(view, entries(view), ContractSpec.model_validate(contract))


def entries(view: Path) -> list[Entry]:
    return [Entry(path.name, path.stat().st_size, "blake3:00") for path in sorted(view.iterdir())]


def test_a_tables_files_are_opened_without_being_asked_for(parquet: Path) -> None:
    (parquet.parent / "other.bin").write_bytes(b"x")
    files = probed(parquet.parent, {"tables": {"t": {"files": "*.parquet"}}})
    assert (files.listed, files.matched, list(files.facts)) == (2, 1, ["t.parquet"])


def test_a_format_that_no_table_can_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("{}")
    finding = probed(tmp_path, {"tables": {"t": {"files": "*"}}}).defects["t.txt"]
    assert ".parquet" in finding.problem
    assert finding.outcome is Outcome.FAIL


def test_a_fault_of_this_nodes_copy_is_inconclusive(parquet: Path) -> None:
    contract = ContractSpec.model_validate({"files": [{"match": "*", "probes": ["parquet"]}]})
    listed = [Entry("t.parquet", 1, "blake3:00"), Entry("gone.parquet", 1, "blake3:00")]
    files = probe_files(parquet.parent, listed, contract)
    assert {finding.outcome for finding in files.defects.values()} == {Outcome.INCONCLUSIVE}
    assert "the manifest says 1" in files.defects["t.parquet"].problem
    assert "stagegate verify" in files.defects["gone.parquet"].fix


def test_files_alone_can_be_a_contract(parquet: Path) -> None:
    contract = ContractSpec.model_validate({"files": [{"match": "*", "probes": ["parquet"]}]})
    validation = validate(parquet.parent, entries(parquet.parent), contract, dataset="d", digest="sha256:0")
    assert {evidence.check: evidence.outcome.value for evidence in validation.evidence} == {
        "schema": "inconclusive",
        "nonempty": "pass",
        "expectations": "inconclusive",
        "coverage": "pass",
    }


def test_without_a_contract_nothing_is_known_but_the_files(parquet: Path) -> None:
    validation = validate(parquet.parent, entries(parquet.parent), ContractSpec(), dataset="d", digest="sha256:0")
    outcomes = {evidence.check: evidence.outcome for evidence in validation.evidence}
    assert outcomes.pop("nonempty") is Outcome.PASS
    assert set(outcomes.values()) == {Outcome.INCONCLUSIVE}
    assert not validation.passed
