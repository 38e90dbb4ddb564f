"""The picture of the pipeline on the first page: states, order, and who waits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.clock import now, stamp
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.retention.retirement import retire
from prefect_stagegate.plugins.watch.watch_records import HOLDS, Hold
from tests.plugins.pages.page_server import page_server, text_of
from tests.support.scenario import ADA, INES, Scenario

GATES: dict[str, Any] = {
    "zeta": {"require": ["license"]},
    "alpha": {"extends": "zeta", "require": [{"approval": {"count": 1, "from": ["infra"]}}]},
}


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    return Scenario(tmp_path, gates=GATES)


def drawn(page: str) -> dict[str, list[list[str]]]:
    """Of each dataset in a page's picture, the cells, each with its marks in words."""
    picture = re.findall(r'aria-label="Where versions are".*?</table>', page, re.DOTALL)[0]
    rows = re.findall(r'<tr><th scope="row"><a [^>]*>(.*?)</a>(.*?)</tr>', picture, re.DOTALL)
    return {name: [words(cell) for cell in re.findall(r"<td.*?</td>", cells, re.DOTALL)] for name, cells in rows}


def words(html: str) -> list[str]:
    """The marks of a cell, without their ages."""
    marks = re.findall(r"<li.*?</li>", html, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]*>|\d+ s ago", " ", mark).split()) for mark in marks]


def test_picture_says_where_each_version_is_and_who_waits(scenario: Scenario) -> None:
    first, second = (scenario.deliver(text).digest[7:19] for text in ("one", "two"))
    check(scenario.node(), Address("things", f"sha256:{first}"), "zeta")
    scenario.promote("zeta")
    check(scenario.node(), Address("things"), "alpha")
    with page_server(scenario.node()) as url:
        page = text_of(url)
    assert page.index(">zeta</th>") < page.index(">alpha</th>") < page.index(">Nodes</th>")
    sources, latest, zeta, alpha, nodes = drawn(page)["things"]
    assert f'data-label="from"><span class="soft">{scenario.nas.as_uri()[:59]}' in page
    assert (latest, zeta) == ([f"staged {second}"], [f"serving {second}"])
    assert alpha[0].startswith(f"waiting {second} approve : infra · {INES.name}")
    assert (sources, nodes) == ([], [f"zeta: {scenario.node().settings.node}"])


def _promoted(scenario: Scenario, text: str) -> str:
    digest = scenario.deliver(text).digest[7:19]
    scenario.promote("zeta")
    return digest


def test_withdrawn_version_is_marked_and_never_next(scenario: Scenario) -> None:
    first, second = (_promoted(scenario, text) for text in ("one", "two"))
    rollback(scenario.node(), Address("things", "zeta"), reason="loss went up")
    with page_server(scenario.node()) as url:
        _, latest, zeta, alpha, _ = drawn(text_of(url))["things"]
    assert latest == [f"staged {second} withdrawn from zeta"]
    assert zeta == [f"serving {first}"]
    assert second not in " ".join(alpha)


def test_held_target_says_why_and_retired_ones_are_gone(scenario: Scenario) -> None:
    scenario.deliver("one")
    scenario.promote("zeta")
    catalog = scenario.node().catalog
    catalog.add(HOLDS, Hold(True, "metrics failed", "", ADA, stamp(now())), "things", "zeta")
    retire(scenario.node(), Address("things", "alpha"), "nobody reads it")
    with page_server(scenario.node()) as url:
        page = text_of(url)
        assert ">alpha</th>" not in page
        held = drawn(page)["things"][2][1]
        assert held.startswith("held things@zeta is held since")
        assert "metrics failed" in held
        assert "stagegate watch release things@zeta" in held
        retire(scenario.node(), Address("things"), "nobody reads it")
    with page_server(scenario.node()) as url:
        assert "things" not in text_of(f"{url}/datasets")
