"""What specs and suites may name: never code to import, a file to write, or a place that nobody listed.

Each exploit here ran its program, wrote its file or brought what it was after, before `spec/permitted.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.errors import SpecError, StagegateError, UsageError
from prefect_stagegate.jobs.gating.validate import validate
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.sources import open_source
from prefect_stagegate.spec import load_spec
from prefect_stagegate.workspace import Workspace
from tests.support.hostile_specs import both_jobs, inside, unchecked, written


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "cache", tmp_path / "records")


@both_jobs
@pytest.mark.parametrize("scheme", ["simplecache::file", "filecache::file", "blockcache::file"])
def test_no_chain_of_file_systems_keeps_copies(job: Any, scheme: str, workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").write_text("x")
    url, cache = f"{scheme}://{tmp_path}/in/", {"cache_storage": str(tmp_path / "cron.d")}
    job(workspace, unchecked(url, {scheme.partition("::")[0]: cache}))
    assert not (tmp_path / "cron.d").exists()
    with pytest.raises(SpecError, match="chains file systems"):
        load_spec(written(url, {}), known_checks={})


@both_jobs
@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("filecache://x/", {"target_protocol": "file"}),
        ("memory://x/", {"protocol": "filecache", "target_protocol": "file"}),
        ("ftp://127.0.0.1:1/", {"protocol": "filecache", "target_protocol": "file"}),
    ],
)
def test_no_option_names_a_file_system(
    job: Any, url: str, options: dict[str, Any], workspace: Workspace, tmp_path: Path
) -> None:
    job(workspace, unchecked(url, {**options, "cache_storage": str(tmp_path / "cron.d")}))
    assert not (tmp_path / "cron.d").exists()


@pytest.mark.parametrize(
    "scheme",
    [
        *("arrow_hdfs", "async_wrapper", "cached", "dask", "data", "dir", "generic", "git", "github", "libarchive"),
        *("reference", "simplecache", "tar", "zip"),
    ],
)
def test_file_systems_that_wrap_others_are_refused(scheme: str) -> None:
    with pytest.raises(UsageError, match=f"may not be read by fsspec's {scheme}://"):
        open_source(f"{scheme}://x/", {})


def test_a_chain_behind_a_bucket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="chains file systems"):
        open_source(f"s3://lake/::file://{tmp_path}", {"config_kwargs": {"read_timeout": 1}})


def test_an_address_in_nested_options_is_judged() -> None:
    options = {"client_kwargs": {"endpoint_url": "http://169.254.169.254"}, "config_kwargs": {"read_timeout": 1}}
    with pytest.raises(UsageError, match="metadata addresses are blocked"):
        open_source("s3://lake/", {**options, "anon": True})


def test_a_device_is_no_certificate_authority() -> None:
    with pytest.raises(UsageError, match="no plain file"):
        open_source("https://127.0.0.1:1/", {"verify": "/dev/zero"})


@pytest.mark.parametrize(
    "condition",
    [
        {"row_condition": "@pd.io.common.os.system('touch {}') == 0", "condition_parser": "pandas"},
        {"row_condition": "@pd.io.common.os.system('touch {}') == 0"},
        {"row_condition": {"type": "pass_through", "pass_through_filter": "number.to_csv('{}') == 0"}},
    ],
)
def test_a_suite_s_condition_is_no_program(condition: Any, workspace: Workspace, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "in").mkdir()
    said = json.loads(json.dumps(condition).replace("{}", str(marker)))
    suite = {"expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "number", **said}}]}
    (tmp_path / "in/a.csv").write_text("number\n1\n")
    tables = {"numbers": {"files": "*.csv", "engine": "pandas", "suite": suite}}
    spec = load_spec({**written(f"{tmp_path}/in/", {}), "contract": {"tables": tables}}, known_checks={})
    stage(workspace, spec)
    try:
        outcome = str(validate(workspace, spec))
    except StagegateError as error:
        outcome = str(error)
    assert not marker.exists()
    assert "'row_condition'" in outcome


@pytest.mark.parametrize("chain", ["", "simplecache::"])
def test_a_suite_lies_where_the_spec_does(chain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with inside(monkeypatch) as (address, requests):
        tables = {"numbers": {"files": "*.csv", "suite": f"{chain}{address}/suite.yaml"}}
        with pytest.raises(SpecError, match=r"suite: .* put the file beside the spec"):
            load_spec({**written("in/", {}), "contract": {"tables": tables}}, known_checks={})
    assert requests == []
