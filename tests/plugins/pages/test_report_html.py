"""Reports as HTML: complete, without requests to other servers, harmless whatever the data hold."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from prefect_stagegate.model import Decision, DecisionOutcome, Finding, Outcome
from prefect_stagegate.show import build_report
from prefect_stagegate.testing.contexts import DIGEST, OTHER_DIGEST, a_spec
from tests.plugins.pages.renderers import to_html
from tests.unit.test_expectation_reports import OBSERVED, REFUSED, evidence, hostile
from tests.unit.test_report import ALL, HOSTILE, MISSING, a_report, answer


def test_page_names_whose_turn_it_is_and_the_fixes() -> None:
    old = Finding("newest", "old", "Ask for more.")
    page = to_html(a_report(answer("schema", Outcome.FAIL, MISSING), answer("freshness", Outcome.FAIL, old)))
    for part in ("schema, freshness", "flights/03.parquet: Rename it back.", "newest: Ask for more."):
        assert part in page


@pytest.mark.parametrize(
    ("serves", "outcome", "sentence"),
    [
        ("", DecisionOutcome.REFUSED, "no version"),
        (DIGEST, DecisionOutcome.WAITING, "this version"),
        (OTHER_DIGEST, DecisionOutcome.REFUSED, "production still serves"),
        (OTHER_DIGEST, DecisionOutcome.ACCEPTED, "sha256:e07ae07ae07a"),
    ],
)
def test_top_of_page_tells_version_and_what_is_served(serves: str, outcome: DecisionOutcome, sentence: str) -> None:
    page = to_html(a_report(*ALL, outcome=outcome, serves=serves))
    top = re.sub(r"<[^>]*>", "", page[: page.index("hose turn")])
    for part in ("nycflights@sha256:4f9c4f9c4f9c", "sha256:aaaaaaaaaaaa", "serves", sentence):
        assert part in top
    assert ("still" in top) == ("still" in sentence)


@pytest.mark.parametrize("outcome", DecisionOutcome)
def test_page_shows_every_check_defect_and_decision(outcome: DecisionOutcome) -> None:
    report = a_report(*ALL, outcome=outcome)
    page = to_html(report)
    for part in (*(row.check for row in report.rows), MISSING.subject, MISSING.problem, MISSING.fix):
        assert part in page
    assert outcome.value in page.lower() or "can't be decided" in page
    assert "nycflights" in to_html(a_report(outcome=outcome))


def test_page_shows_passed_and_failed_expectations() -> None:
    page = to_html(a_report(evidence(REFUSED, OBSERVED)))
    for part in ("flights", "expect_it", "expect_max", "4983", "pattern AAA", "-7", "distance"):
        assert part in page


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def hostile_page() -> Page:
    findings = (Finding(name, name, name) for name in HOSTILE)
    return Page(to_html(a_report(answer("schema", Outcome.FAIL, *findings), *ALL[3:])))


def test_page_has_one_script_and_refers_to_nothing_outside(hostile_page: Page) -> None:
    names = [tag for tag, _ in hostile_page.tags]
    assert not set(names).intersection({"img", "link", "iframe", "object", "embed", "form", "base", "image", "use"})
    assert names.count("script") == 1
    for tag, attributes in hostile_page.tags:
        assert not {"src", "srcset", "style", "background"}.intersection(attributes), tag
        assert not [name for name in attributes if name.startswith("on")], tag
    links = {attributes["href"] for tag, attributes in hostile_page.tags if tag == "a"}
    ids = [attributes["id"] for _, attributes in hostile_page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link and link.startswith("#")} <= set(ids)
    links = {link for link in links if link and not link.startswith("#")}
    assert links == {
        "mailto:data-eng@example.org",
        "mailto:oncall@example.org",
        "mailto:platform@example.org",
        "mailto:legal@example.org",
        "https://wiki.example.org/nycflights",
    }
    assert not re.search(r"@import|url\(", to_html(a_report(*ALL)))


def test_page_shows_hostile_names_as_they_are(hostile_page: Page) -> None:
    assert "a<script>alert(1)</script>.parquet" in hostile_page.text
    assert "{{ 7 * 7 }}" in hostile_page.text
    assert r"\x1b[2Jcleared\x07.parquet" in hostile_page.text
    assert not set("\x1b\x07\u202e").intersection(hostile_page.text)


def test_page_forbids_the_browser_to_fetch_anything(hostile_page: Page) -> None:
    (policy,) = [a["content"] for tag, a in hostile_page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    script = re.findall(r"<script>(.*?)</script>", to_html(a_report(*ALL)), re.DOTALL)[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_runbook_is_a_link_only_when_it_is_on_the_web() -> None:
    decision = Decision("nycflights", DIGEST, "pilot", DecisionOutcome.ACCEPTED, ALL[:1], "", "", "")
    page = Page(to_html(build_report(decision, a_spec(runbook="javascript:alert(1)"))))
    assert "javascript:alert(1)" in page.text
    assert not [a for tag, a in page.tags if tag == "a" and "javascript" in str(a["href"])]


def test_page_shows_hostile_values_as_text() -> None:
    page = Page(to_html(a_report(evidence(*hostile()))))
    tags = [tag for tag, _ in page.tags]
    assert ("img" in tags, tags.count("script")) == (False, 1)
    assert "<script>alert(1)</script>" in page.text
    assert not set("\x1b\x07\u202e\x00").intersection(page.text)
    assert max(map(len, re.split(r"\s", page.text))) < 1000
