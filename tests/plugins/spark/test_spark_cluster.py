"""A standalone cluster and Spark Connect judge tables as this node does, or leave them inconclusive with the reason."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from prefect_stagegate.testing.servers import free_port
from prefect_stagegate.validations.worker.child import judge_in_child
from prefect_stagegate.validations.worker.process_limits import ValidationLimits
from prefect_stagegate.validations.worker.worker_messages import ExpectationVerdict, TableJob, TableReport
from tests.plugins.spark.spark import TOKEN, StandaloneCluster, spark_connect, standalone_cluster
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

SECRET = "spark.authenticate true\nspark.authenticate.secret a secret of this test\n"


def expect(kind: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": f"expect_{kind}", "kwargs": kwargs}


POSITIVE = expect("column_values_to_be_between", column="distance", min_value=0)
EXPECTATIONS = [
    POSITIVE,
    expect("table_row_count_to_equal", value=600),
    expect("column_values_to_not_be_null", column="tailnum"),
    expect("column_values_to_match_regex", column="tailnum", regex="^N[0-9]+$"),
    expect("column_values_to_be_unique", column="flight"),
    expect("column_median_to_be_between", column="distance", min_value=0, max_value=1),
    expect("column_mean_to_be_between", column="distance", min_value=0),
    expect("compound_columns_to_be_unique", column_list=["month", "flight"]),
    {"type": "unexpected_rows_expectation", "kwargs": {"unexpected_rows_query": "FROM {batch} WHERE distance < 0"}},
]
COLUMNS = ["flight", "tailnum", "distance", "month"]


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three months of flights, in Parquet, CSV and JSON; one row has a negative distance, one no tail number."""
    folder = tmp_path_factory.mktemp("view")
    for month, ending in enumerate(("parquet", "csv", "jsonl"), 1):
        numbers = range(1000 * month, 1000 * month + 200)
        tails: list[str | None] = [f"N{number}" for number in numbers]
        distances = [100 + number for number in numbers]
        if month == 2:
            tails[7], distances[8] = None, -5
        frame = pd.DataFrame({"flight": numbers, "tailnum": tails, "distance": distances})
        file = folder / f"month={month}/flights.{ending}"
        file.parent.mkdir()
        if ending == "parquet":
            frame.to_parquet(file, index=False)
        elif ending == "csv":
            frame.to_csv(file, index=False, na_rep="NA")
        else:
            frame.to_json(file, orient="records", lines=True)
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandaloneCluster]:
    """A cluster that asks for a secret, which SPARK_CONF_DIR has."""
    folder = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patch, standalone_cluster(folder, configuration(folder)) as running:
        patch.setenv("SPARK_CONF_DIR", str(folder / "conf"))
        yield running


def configuration(folder: Path) -> Path:
    conf = folder / "conf"
    conf.mkdir()
    (conf / "spark-defaults.conf").write_text(SECRET)
    return conf


def judge(view: Path, engine: str, *expectations: dict[str, Any], seconds: float = 800) -> TableReport:
    files = sorted(str(path.relative_to(view)) for path in view.rglob("*.*"))
    suite = {"expectations": list(expectations)}
    job = TableJob("flights", engine, suite, str(view), files, COLUMNS)
    return judge_in_child([job], dataset="d", limits=ValidationLimits(seconds=seconds), progress=print)["flights"]


def verdicts(report: TableReport) -> list[tuple[object, ...]]:
    return [
        (judgement.expectation, judgement.verdict, judgement.rows, judgement.refused, judgement.places)
        for judgement in report.judgements
    ]


def only_problem(report: TableReport) -> str:
    (judgement,) = report.judgements
    assert judgement.verdict is ExpectationVerdict.ERRORED
    return judgement.problem


def test_cluster_gives_the_verdicts_of_duckdb(
    cluster: StandaloneCluster, flights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGEGATE_SPARK", cluster.url)
    report = judge(flights, "spark", *EXPECTATIONS)
    assert verdicts(report) == verdicts(judge(flights, "duckdb", *EXPECTATIONS))
    assert ExpectationVerdict.ERRORED not in {judgement.verdict for judgement in report.judgements}
    assert len(cluster.state("completedapps")) == 1


def test_connect_gives_the_verdicts_of_duckdb(flights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server asks for a token, and would leave out missing and corrupt files by itself."""
    corrupt = tmp_path / "view/flights.parquet"
    corrupt.parent.mkdir()
    pd.DataFrame({"distance": range(20_000)}).to_parquet(corrupt, index=False)
    content = bytearray(corrupt.read_bytes())
    content[200:20_000] = b"\xff" * 19_800
    corrupt.write_bytes(content)
    with spark_connect(tmp_path) as url:
        monkeypatch.setenv("STAGEGATE_SPARK", url)
        monkeypatch.setenv("SPARK_CONNECT_AUTHENTICATE_TOKEN", "another token")
        refused = judge(flights, "spark", POSITIVE)
        monkeypatch.setenv("SPARK_CONNECT_AUTHENTICATE_TOKEN", TOKEN)
        report = judge(flights, "spark", *EXPECTATIONS)
        unreadable = judge(corrupt.parent, "spark", POSITIVE).unreadable
    assert "Spark did not start: look at STAGEGATE_SPARK" in only_problem(refused)
    assert verdicts(report) == verdicts(judge(flights, "duckdb", *EXPECTATIONS))
    assert [file for file, _ in unreadable] == ["flights.parquet"]


def test_worker_without_the_files_is_inconclusive(
    flights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = configuration(tmp_path)
    with standalone_cluster(tmp_path, conf, hidden=flights) as cluster:
        monkeypatch.setenv("SPARK_CONF_DIR", str(conf))
        monkeypatch.setenv("STAGEGATE_SPARK", cluster.url)
        problem = only_problem(judge(flights, "spark", POSITIVE))
    assert "Spark workers must see the cache under the same path as this node" in problem


@pytest.mark.parametrize("scheme", ["spark", "sc"])
def test_dead_cluster_is_inconclusive_at_once(flights: Path, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGEGATE_SPARK", f"{scheme}://127.0.0.1:{free_port()}")
    problem = only_problem(judge(flights, "spark", POSITIVE))
    assert "The Spark cluster does not answer (Connection refused): look at STAGEGATE_SPARK" in problem
    assert "127.0.0.1" not in problem


SOON = """
import sys
from pathlib import Path
from prefect_stagegate.plugins.spark import spark_session
spark_session.START_SECONDS = 20.0
try:
    spark_session.open_session(Path(sys.argv[1]))
except RuntimeError as error:
    print(error, flush=True)
spark_session.os._exit(0)
"""


def test_cluster_without_a_free_core_is_given_up(
    cluster: StandaloneCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf").mkdir()
    # More memory than any worker has.
    (tmp_path / "conf/spark-defaults.conf").write_text(f"{SECRET}spark.executor.memory 900g\n")
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path / "conf"))
    monkeypatch.setenv("STAGEGATE_SPARK", cluster.url)
    command = [sys.executable, "-c", SOON, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert said == "Spark ran no task within 20 s: look at STAGEGATE_SPARK and at the workers of the cluster\n"


def test_timeout_frees_the_cluster(cluster: StandaloneCluster, flights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGEGATE_SPARK", cluster.url)
    with pytest.raises(Exception, match="not judged within 30 s"):
        judge(flights, "spark", *[{**POSITIVE, "meta": {"n": n}} for n in range(400)], seconds=30)
    ended = eventually(lambda: not cluster.state("activeapps"))
    assert ended, "the cluster still works for a validation that has ended"
