"""CSV in random dialects with random defects: accepted files mean one thing, refused ones are named with the place."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fuzzing.campaign import Budget, WrongOutcome, require_clean, run_campaign
from fuzzing.delimited import Delivery, draw_delivery

from prefect_stagegate.model import Entry, Outcome
from prefect_stagegate.spec import ContractSpec, TableSpec
from prefect_stagegate.validations.files.file_probes import probe_files
from prefect_stagegate.validations.files.text_files import header_of, opened
from prefect_stagegate.validations.queries.duck import bounded
from prefect_stagegate.validations.queries.relations import TableFiles, relation_of
from prefect_stagegate.validations.table_files import examine

pytestmark = [pytest.mark.system, pytest.mark.timeout(0), pytest.mark.usefixtures("soon")]

NAMED = re.compile(r'column (.+): ("(?:[^"\\]|\\.)*") at (?:line|row) ([0-9,]+) is no ')


def test_csv_keeps_its_promise(scratch: Path) -> None:
    folder = scratch / "v"

    def play(_: int, draw: random.Random) -> str:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        delivery = draw_delivery(draw)
        (folder / delivery.name).write_bytes(delivery.data)
        try:
            return _judge(folder, delivery)
        except Exception as error:
            error.args = (f"{error.args} {delivery}",)
            raise

    require_clean(run_campaign("csv", Budget.of_environment(), play))


def _judge(folder: Path, delivery: Delivery) -> str:
    table = {"files": "*", "columns": delivery.columns, "csv": delivery.csv}
    contract = ContractSpec.model_validate({"tables": {"t": table}})
    entry = Entry(delivery.name, len(delivery.data), "blake3:0")
    probed = probe_files(folder, [entry], contract)
    if delivery.name in probed.defects:
        if not probed.defects[delivery.name].problem or str(folder) in probed.defects[delivery.name].problem:
            raise WrongOutcome(f"a defect without a reason: {probed.defects}")
        return "unreadable"
    spec = contract.tables["t"]
    examined = examine("t", spec, probed)
    problems = examined.problems.get(delivery.name, ())
    if failed := [problem for problem in problems if problem.outcome is Outcome.FAIL]:
        for problem in failed:
            _require_place(folder, delivery, problem.problem)
        return "refused"
    _compare(folder, delivery, spec)
    return "read alike"


def _require_place(folder: Path, delivery: Delivery, problem: str) -> None:
    """A value that is told stands in the line that is told."""
    if " is no " not in problem:
        if "the contract says" in problem and "is date32" not in problem:
            raise WrongOutcome(f"no value is named: {problem}")
        return
    named = NAMED.match(problem)
    if named is None:
        raise WrongOutcome(f"no place is named: {problem}")
    with opened(folder / delivery.name) as file:
        text = file.read().decode(str(delivery.csv["encoding"]), errors="replace")
    lines = re.split(r"\r\n|\r|\n", text)
    first = re.split(r"\r\n|\r|\n", json.loads(named[2]))[0].removesuffix("…").replace('"', "")
    begin = int(named[3].replace(",", "")) - 1
    if "?" not in first and not any(first in line.replace('"', "") for line in lines[begin : begin + 10]):
        raise WrongOutcome(f"it is not there: {problem}")


def _compare(folder: Path, delivery: Delivery, spec: TableSpec) -> None:
    ours = _ours(folder, delivery, spec)
    if any(not name for name in header_of(folder / delivery.name, spec.csv)):
        return  # it has a warning
    theirs = _pandas(folder / delivery.name, delivery, spec)
    if list(ours) != list(theirs.columns):
        raise WrongOutcome(f"other columns: {list(ours)}, pandas has {list(theirs.columns)}")
    for name, values in ours.items():
        read = [None if pd.isna(value) else value for value in theirs[name]]
        if len(read) != len(values) or not all(map(_same, values, read)):
            raise WrongOutcome(f"column {name}: {values}, pandas has {read}")


def _ours(folder: Path, delivery: Delivery, spec: TableSpec) -> dict[str, list[Any]]:
    with bounded(folder) as connection:
        rows = relation_of(connection, TableFiles(folder, [delivery.name], spec.reading))
        table = connection.sql(rows).to_arrow_table()
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _pandas(path: Path, delivery: Delivery, spec: TableSpec) -> pd.DataFrame:
    """The file as pandas reads it when it is told the dialect."""
    csv = spec.csv
    texts = [name for name, kind in delivery.columns.items() if kind not in ("int", "double")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame: pd.DataFrame = pd.read_csv(
            path,
            sep=csv.separator or ",",
            decimal=csv.decimal,
            na_values=list(csv.null),
            keep_default_na=False,
            encoding=csv.encoding,
            dtype=dict.fromkeys(texts, str),
            float_precision="round_trip",
            dtype_backend="numpy_nullable",
        )
    if not isinstance(frame.index, pd.RangeIndex):
        raise WrongOutcome("pandas takes a column for the index")
    for name, kind in delivery.columns.items():
        if kind in ("date", "timestamp"):
            written = csv.dates if kind == "date" else csv.times or "ISO8601"
            frame[name] = pd.to_datetime(frame[name], format=written, utc=kind == "timestamp")
    return frame


def _same(ours: Any, theirs: Any) -> bool:
    if hasattr(ours, "isoformat") and theirs is not None:
        moment = pd.Timestamp(ours)
        return bool(moment.tz_localize(theirs.tz) == theirs if moment.tz is None else moment == theirs)
    if isinstance(ours, float) and math.isnan(ours):
        return theirs is None or str(theirs).lower().strip("+- ") == "nan"
    if isinstance(ours, float) and isinstance(theirs, str):  # one `nan` makes the column text for pandas
        return ours == float(theirs.replace(",", "."))
    return bool(ours == theirs)
