"""Pages for programs: the documents of the commands, in parts, and errors as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Scope

from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.pages import documents
from prefect_stagegate.plugins.pages.json_answers import prefers_json
from tests.plugins.pages.page_server import get, page_server
from tests.support.scenario import Scenario

GATES = {"pilot": {"require": ["license"]}}
JSON = "application/json"
Command = Callable[..., Any]


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    made = Scenario(tmp_path, gates=GATES)
    for text in ("one", "two two"):
        made.deliver(text)
        made.promote()
    return made


@pytest.fixture
def url(scenario: Scenario) -> Iterator[str]:
    with page_server(scenario.node()) as url:
        yield url


@pytest.fixture
def command(scenario: Scenario, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: str) -> Any:
        capsys.readouterr()
        scenario.run(*words, "--json")
        return json.loads(capsys.readouterr().out)

    return run


def read(url: str, accept: str = JSON) -> Any:
    response = get(url, Accept=accept)
    assert (response.status, response.headers["content-type"]) == (200, JSON), response.body
    assert "Accept" in response.headers["vary"]
    return json.loads(response.body)


def digests(scenario: Scenario) -> list[str]:
    return [entry.digest for entry in scenario.node().catalog.history("things", "latest")]


def test_first_page_is_the_status(url: str, command: Command) -> None:
    expected = command("status")
    assert read(f"{url}/") == read(f"{url}/datasets") == expected
    assert expected[0]["dataset"] == "things"


def test_dataset_is_its_list_of_versions(url: str, command: Command) -> None:
    expected = command("ls", "things")
    assert len(expected) == 2
    assert read(f"{url}/datasets/things") == expected


def test_policy_is_the_adopted_one(url: str, command: Command) -> None:
    assert read(f"{url}/datasets/things/policy") == command("policy", "show", "things")


def test_version_and_files_are_what_show_prints(scenario: Scenario, url: str, command: Command) -> None:
    digest = digests(scenario)[0]
    expected = command("show", f"things@{digest}")
    page = f"{url}/datasets/things/versions/{digest[7:]}"
    assert read(page) == read(f"{page}/files") == expected
    assert [entry["path"] for entry in expected["entries"]] == ["data.csv"]


def test_comparison_is_the_diff(scenario: Scenario, url: str, command: Command) -> None:
    old, new = digests(scenario)
    expected = command("diff", f"things@{old}", f"things@{new}")
    assert read(f"{url}/datasets/things/compare?old={old[7:]}&new={new[7:]}") == expected
    assert expected


def test_decision_is_the_report_in_json(scenario: Scenario, url: str) -> None:
    decision = check(scenario.node(), Address("things", "latest"), "pilot")
    page = f"{url}/datasets/things/versions/{decision.digest[7:]}/decisions/pilot"
    shown = get(f"{url}/datasets/things/versions/{decision.digest[7:]}").body.decode()
    name = shown.partition("/decisions/pilot/")[2][:64]
    report = read(f"{page}/{name}")
    assert (report["dataset"], report["target"], report["accepted"]) == ("things", "pilot", True)


def test_long_lists_come_in_parts(scenario: Scenario, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "VERSIONS", 1)
    pages = [get(f"{url}/datasets/things{query}", Accept=JSON) for query in ("", "?page=2")]
    assert pages[0].headers["link"] == '</datasets/things?page=2>; rel="next"'
    assert pages[1].headers["link"] == '</datasets/things?page=1>; rel="prev"'
    (newest,), (oldest,) = (json.loads(page.body) for page in pages)
    assert [oldest["digest"], newest["digest"]] == digests(scenario)


def test_query_may_have_any_names(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "VERSIONS", 1)
    page = get(f"{url}/datasets/things?self=1", Accept=JSON)
    assert page.headers["link"] == '</datasets/things?self=1&page=2>; rel="next"'


def test_records_that_can_t_be_read_are_the_last_elements(scenario: Scenario, command: Command) -> None:
    for path in (scenario.folder / "catalog/datasets/things/policy").iterdir():
        path.write_text("{")
    with page_server(scenario.node()) as url:
        assert read(f"{url}/datasets") == command("status")
        assert "unreadable" in read(f"{url}/datasets")[-1]


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/nothing", 404, "UnknownRef"),
        ("/datasets/other", 404, "UnknownDataset"),
        ("/datasets/other/policy", 404, "UnknownDataset"),
        ("/datasets/A_B", 404, "UnknownRef"),
        (f"/datasets/things/versions/{'0' * 64}", 404, "UnknownRef"),
        ("/datasets/things/versions/xyz", 404, "UnknownRef"),
        ("/datasets/things/compare?old=1&new=2", 404, "UnknownRef"),
        (f"/datasets/things/versions/{'0' * 64}/decisions/..%2F/{'0' * 64}", 404, "UnknownRef"),
        ("/jobs/unknown", 404, "UnknownRef"),
    ],
)
def test_errors_are_json(url: str, path: str, status: int, kind: str) -> None:
    response = get(url + path, Accept=JSON)
    assert (response.status, response.headers["content-type"]) == (status, JSON)
    error = json.loads(response.body)["error"]
    assert error["type"] == kind
    assert error["message"]


def test_refusals_of_the_guard_are_json(scenario: Scenario) -> None:
    with page_server(scenario.node(), token="0123456789abcdef0123") as url:
        for method, status in (("GET", 401), ("PUT", 405)):
            response = get(url, method, Accept=JSON)
            assert response.status == status
            assert json.loads(response.body)["error"]["message"]


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        (JSON, True),
        ("application/json, text/plain, */*", True),
        ("text/html;q=0.4, application/json;q=0.5", True),
        ("*/*;q=0.1, application/json;q=0.2", True),
        ("application/*", True),
        ("", False),
        ("*/*", False),
        ("text/html, application/json", False),
        ("text/html, application/json;q=0.9, */*;q=0.8", False),
        ("application/json;q=0, */*", False),
        ("application/json;q=x", False),
        ("application/json;q=nan, text/html", False),
        (",;q=1,;;", False),
    ],
)
def test_json_is_for_who_prefers_it(accept: str, is_json: bool) -> None:
    scope: Scope = {"type": "http", "headers": [(b"accept", accept.encode())] if accept else []}
    assert prefers_json(scope) is is_json
