"""What specs, catalogs and tables may name: never code to import, a file to write, or a place that nobody listed.

Each exploit here ran its program, wrote its file or brought what it was after, before `spec/permitted.py`.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.errors import SpecError, StagegateError, UsageError
from prefect_stagegate.operations.doctor import examine
from prefect_stagegate.operations.stage import stage
from prefect_stagegate.operations.workspace import Workspace, open_workspace
from prefect_stagegate.sources import open_source
from prefect_stagegate.spec import Spec, load_spec
from prefect_stagegate.spec.sources import SourceSpec

PLANTED = """
from pathlib import Path

Path({marker!r}).write_text("it ran")
"""


@pytest.fixture
def where(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "cache", tmp_path / "records")


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the module `planted` writes when somebody imports it."""
    found = tmp_path / "marker"
    (tmp_path / "site").mkdir()
    (tmp_path / "site/planted.py").write_text(PLANTED.format(marker=str(found)))
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(__import__("sys").modules, "planted", raising=False)
    return found


def written(url: str, options: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A spec as somebody writes it."""
    return {"stagegate": 1, "dataset": "things", "sources": [{"url": url, "options": options, **more}]}


def unchecked(url: str, options: dict[str, Any], **more: Any) -> Spec:
    """A spec whose options nobody looked at, as an older release stored it."""
    spec = load_spec(written("file:///", {}, **more), known_checks={})
    source = SourceSpec.model_construct(**{**dict(spec.sources[0]), "url": url, "options": options})
    return Spec.model_construct(**{**dict(spec), "sources": (source,)})


def try_stage(where: Workspace, spec: Spec) -> None:
    with suppress(StagegateError):
        stage(where, spec)


def try_doctor(where: Workspace, spec: Spec) -> None:
    examine(spec, where.settings, lambda _: {})


both_jobs = pytest.mark.parametrize("job", [try_stage, try_doctor])


@both_jobs
@pytest.mark.parametrize("scheme", ["simplecache::file", "filecache::file", "blockcache::file"])
def test_no_chain_of_file_systems_keeps_copies(job: Any, scheme: str, where: Workspace, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").write_text("x")
    url, cache = f"{scheme}://{tmp_path}/in/", {"cache_storage": str(tmp_path / "cron.d")}
    job(where, unchecked(url, {scheme.partition("::")[0]: cache}))
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
    job: Any, url: str, options: dict[str, Any], where: Workspace, tmp_path: Path
) -> None:
    job(where, unchecked(url, {**options, "cache_storage": str(tmp_path / "cron.d")}))
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
    with pytest.raises(UsageError, match="tell their secrets"):
        open_source("s3://lake/", {**options, "anon": True})


def test_a_device_is_no_certificate_authority() -> None:
    with pytest.raises(UsageError, match="no plain file"):
        open_source("https://127.0.0.1:1/", {"verify": "/dev/zero"})
