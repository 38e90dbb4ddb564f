"""Objects that can't be staged: listed with their reasons, and left out only where a spec lets them be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefect_stagegate.errors import TransferFailed
from prefect_stagegate.flows import stage as stage_flow
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import LATEST, FailedObject, Outcome
from prefect_stagegate.show import failed_document, render
from prefect_stagegate.show.artifacts import LISTED
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.workspace import Workspace
from tests.support.faults import Status
from tests.support.proxy import FaultProxy
from tests.support.told import artifact
from tests.support.versions import read_failed

KEYS = ("a.bin", "b.bin", "c.bin", "d|e.bin")
BROKEN = ("b.bin", "d|e.bin")


@pytest.fixture
def proxy(seaweedfs: SeaweedFS) -> Iterator[FaultProxy]:
    """Some objects are broken behind it."""
    with FaultProxy(seaweedfs.endpoint_url) as running:
        running.break_with(lambda fetch: Status(403, "AccessDenied") if fetch.path.endswith(BROKEN) else None)
        yield running


@pytest.fixture
def spec(
    seaweedfs: SeaweedFS, proxy: FaultProxy, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret)
    url = seaweedfs.bucket(f"failed-{abs(hash(request.node.name))}")
    seaweedfs.client().pipe({f"{url}/{key}": key.encode() for key in KEYS})
    return {"stagegate": 1, "dataset": "partial", "sources": [{"url": url, "options": {"endpoint_url": proxy.url}}]}


def test_version_within_the_failure_budget_lists_what_it_lacks(
    spec: dict[str, Any], workspace: Workspace, proxy: FaultProxy
) -> None:
    version = stage(workspace, {**spec, "max_failed_objects": 2})
    assert version.files == 2
    assert sorted((failure.path, failure.error) for failure in version.failed) == [
        (key, "AccessDenied") for key in BROKEN
    ]
    assert read_failed(workspace.catalog, "partial", version.digest) == version.failed
    assert stage(workspace, {**spec, "max_failed_objects": 2}).failed  # tried again, and told again
    proxy.break_with(lambda _: None)
    whole = stage(workspace, {**spec, "max_failed_objects": 2})
    assert (whole.files, whole.failed) == (4, ())
    assert read_failed(workspace.catalog, "partial", whole.digest) == ()


def test_a_version_that_is_whole_now_lacks_nothing_any_more(
    spec: dict[str, Any], workspace: Workspace, proxy: FaultProxy, seaweedfs: SeaweedFS
) -> None:
    version = stage(workspace, {**spec, "max_failed_objects": 2})
    seaweedfs.client().rm([f"{spec['sources'][0]['url']}/{key}" for key in BROKEN])
    again = stage(workspace, spec)
    assert again.digest == version.digest
    assert read_failed(workspace.catalog, "partial", again.digest) == ()


def test_coverage_check_names_the_objects_that_are_missing(spec: dict[str, Any], workspace: Workspace) -> None:
    spec |= {"max_failed_objects": 2, "gates": {"pilot": {"require": ["coverage"]}}}
    spec |= {"contract": {"files": [{"match": "*.bin", "probes": ["nonempty"]}]}}
    stage(workspace, spec)
    decision = check(workspace, spec, "pilot")
    assert decision.accepted
    (answer,) = decision.checks
    assert answer.outcome is Outcome.WARN
    assert "2 objects could not be staged" in answer.summary
    assert {finding.subject for finding in answer.findings} == set(BROKEN)


def test_beyond_the_budget_nothing_is_published(spec: dict[str, Any], workspace: Workspace) -> None:
    with pytest.raises(TransferFailed) as caught:
        stage(workspace, {**spec, "max_failed_objects": 1})
    assert {failure.object for failure in caught.value.failures} == set(BROKEN)
    assert workspace.catalog.ref("partial", LATEST) is None
    assert list(workspace.cache.views.all()) == []


def test_a_budget_makes_no_version_of_nothing(spec: dict[str, Any], workspace: Workspace, proxy: FaultProxy) -> None:
    proxy.break_with(lambda _: Status(403, "AccessDenied"))
    with pytest.raises(TransferFailed):
        stage(workspace, {**spec, "max_failed_objects": 100})


def test_the_command_line_lists_them(
    spec: dict[str, Any], tmp_path: Path, run_stagegate: Callable[..., Any], seaweedfs: SeaweedFS
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": seaweedfs.key, "AWS_SECRET_ACCESS_KEY": seaweedfs.secret}
    file = tmp_path / "partial.yaml"
    file.write_text(yaml.safe_dump(spec))
    done = run_stagegate("stage", file, "--json", env=keys)
    assert done.returncode == 3
    answer = json.loads(done.stdout)
    assert [failure["path"] for failure in answer["failed"]]
    assert (answer["error"]["type"], answer["error"]["retryable"]) == ("TransferFailed", False)
    file.write_text(yaml.safe_dump({**spec, "max_failed_objects": 2}))
    done = run_stagegate("stage", file, env=keys)
    assert done.returncode == 0
    assert "2 objects failed and were left out:" in done.stdout
    assert "b.bin: Access is denied" in done.stdout
    assert "2 objects failed and were left out:" in run_stagegate("show", "partial").stdout
    shown = json.loads(run_stagegate("show", "partial", "--json").stdout)
    assert sorted(failure["path"] for failure in shown["failed"]) == list(BROKEN)


@pytest.mark.system
@pytest.mark.usefixtures("prefect_server")
def test_the_run_s_page_lists_them(spec: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(TransferFailed):
        stage_flow(spec, cache=tmp_path / "cache", catalog=tmp_path / "catalog")
    page = artifact("partial-failed")["data"]
    assert "No version was made" in page
    assert "`b.bin`" in page
    version = stage_flow({**spec, "max_failed_objects": 2}, cache=tmp_path / "cache", catalog=tmp_path / "catalog")
    page = artifact("partial-failed")["data"]
    assert version.digest in page
    assert "`d|e.bin`" in page


def test_an_error_s_text_lists_some_and_counts_the_rest() -> None:
    failures = []
    for number in range(LISTED + 5):
        failure = TransferFailed([])
        failure.object = str(number)
        failures.append(failure)
    assert str(TransferFailed(failures)).endswith("and 5 more")


def test_a_page_is_bounded() -> None:
    failed = [FailedObject(f"{number}", "s3://lake/", "AccessDenied", "Access is denied") for number in range(1000)]
    page = render("markdown", failed_document("lake", failed))
    assert page.count("error AccessDenied") == 200
    assert "- 800 more" in page
