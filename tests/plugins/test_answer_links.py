"""Links to the pages for answers, in pages and in what is sent; a link alone never acts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from prefect_stagegate import open_dataset
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.policy import adopt
from prefect_stagegate.jobs.review.reports import report_of
from prefect_stagegate.model import Address
from prefect_stagegate.tasks._support.version_events import decision_event
from tests.plugins.answer_server import GATES, answering, request_path
from tests.support.scenario import INES, Scenario

THINGS = Address("things", "latest")


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    """A version that waits at production, a failed one at pilot, and a proposed policy."""
    made = Scenario(tmp_path, gates=GATES, policy={"change": {"approval": {"count": 1, "from": ["infra"]}}})
    made.deliver("one")
    made.promote("pilot")
    check(made.node(), THINGS, "production")
    made.deliver("two", license="CC-BY-NC-4.0")
    check(made.node(), THINGS, "pilot")
    adopt(made.node(), made.spec(gates=GATES | {"pilot": {"require": ["nonempty"]}}), reason="less")
    return made


@pytest.mark.parametrize("base", ["", "/stagegate"])
def test_turns_link_to_where_they_are_taken(scenario: Scenario, base: str) -> None:
    with answering(scenario.node(), base=base) as at:
        ines = at(INES.name)
        links = re.findall(
            r'href="([^"]+)">(Answer|Waive license|Roll back|Hold)</a>', ines.get("/datasets/things").text
        )
        assert sorted(words for _, words in links) == ["Answer", "Answer", "Hold", "Roll back", "Waive license"]
        assert f"{base}{request_path(scenario.node(), scenario.head('pilot'))}" in dict(links)
        before = list(scenario.node().catalog.records.keys("datasets/things/"))
        assert [ines.get(link.removeprefix(base)).status_code for link, _ in links] == [200] * 5
        assert list(scenario.node().catalog.records.keys("datasets/things/")) == before
        (proposal,) = re.findall(r'href="([^"]+)">Answer</a>', ines.get("/datasets/things/policy").text)
        assert proposal in dict(links)
        assert {link for link, words in links if words not in ("Roll back", "Hold")} <= set(
            re.findall(r'href="([^"]+)"', ines.get("/").text)
        )


def test_messages_name_the_page_of_the_request(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    decision = check(scenario.node(), Address("things", scenario.head("pilot")), "production")
    payloads = []
    for url in ("", "https://data.example.org/stagegate/"):
        monkeypatch.setenv("STAGEGATE_PAGES_URL", url)
        node = scenario.node()
        payloads.append(decision_event(node, decision, report_of(node, decision)).payload)
    path = request_path(scenario.node(), scenario.head("pilot"))
    assert [payload["page"] for payload in payloads] == ["", f"https://data.example.org/stagegate{path}"]


def test_rollback_names_who_used_the_version_first(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in scenario.environment(STAGEGATE_IDENTITY=INES.name).items():
        monkeypatch.setenv(name, value)
    with open_dataset("things@pilot") as data:
        data.log("https://mlflow.example.org/#/experiments/1/runs/4f9c1e")
    with answering(scenario.node()) as at:
        shown = at(INES.name).get("/datasets/things/targets/pilot/roll-back").text
    assert "Runs that used it:" in shown
    assert "4f9c1e" in shown
