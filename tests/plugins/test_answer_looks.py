"""Pages for answers in a real browser: the whole story by keyboard, barriers, phone, dark colours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.policy import adopt
from prefect_stagegate.model import Address
from tests.plugins.answer_server import GATES, answering, answers_to, request_path
from tests.support.browser import DESKTOP, PHONE, OpenPage, chromium, opened
from tests.support.scenario import ADA, INES, Scenario

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
SCRIPT = "<script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    """A version that waits for an approval, one that failed a check, and a proposed policy."""
    made = Scenario(tmp_path, gates=GATES, policy={"change": {"approval": {"count": 1, "from": ["infra"]}}})
    for text in ("one", "two", "three"):
        made.deliver(text)
        made.promote()
    made.deliver("four")
    made.promote("pilot")
    check(made.node(), Address("things", "latest"), "production")
    return made


@contextmanager
def visiting(
    browser: Browser, address: str, who: str, size: tuple[int, int] = DESKTOP, **look: bool
) -> Iterator[OpenPage]:
    """A page as somebody who is logged in sees it."""
    with opened(browser, address, size=size, cookies={"who": who}, **look) as shown:
        yield shown


def tab_to(page: Page, label: str) -> None:
    """Press the tabulator until the element of an accessible name has the focus."""
    name = "() => { const e = document.activeElement; return (e.labels?.[0] ?? e).textContent.trim() }"
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate(name).startswith(label):
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
            return
    raise AssertionError(f"the keyboard does not reach {label!r}")


def test_version_is_approved_by_keyboard_alone(scenario: Scenario, browser: Browser) -> None:
    path = request_path(scenario.node())
    with answering(scenario.node()) as at, visiting(browser, at("").url + path, INES.name, script=False) as shown:
        page = shown.page
        tab_to(page, "Reason")
        page.keyboard.type("seen the report")
        tab_to(page, "Approve")
        page.keyboard.press("Enter")
        page.get_by_text("Enough people agreed").wait_for()
        assert page.url.endswith(path)
        assert "by ines@example.org" in page.locator(".people").inner_text()
        assert (shown.complaints, shown.overflow()) == ([], 0)
    (answer,) = answers_to(scenario.node(), path)
    assert (answer.approved, answer.reason) == (True, "seen the report")


def test_refused_answer_keeps_the_reason(scenario: Scenario, browser: Browser) -> None:
    path = request_path(scenario.node())
    with answering(scenario.node()) as at, visiting(browser, at("").url + path, ADA.name, PHONE) as shown:
        shown.page.get_by_label("Reason").fill(f"mine {SCRIPT}")
        shown.page.get_by_role("button", name="Approve").click()
        shown.page.get_by_role("alert").wait_for()
        assert "made the request and can't answer it" in shown.page.get_by_role("alert").inner_text()
        assert shown.page.get_by_label("Reason").input_value() == f"mine {SCRIPT}"
        assert (shown.overflow(), shown.violations(), shown.page.title().count("owned")) == (0, [], 0)


def test_target_is_rolled_back_in_the_browser(scenario: Scenario, browser: Browser) -> None:
    path, before = "/datasets/things/targets/production/roll-back", scenario.head("production")
    with answering(scenario.node()) as at, visiting(browser, at("").url + path, INES.name) as shown:
        page = shown.page
        page.get_by_role("button", name="Roll back").click()
        assert page.evaluate("document.activeElement.name") == "reason"  # the browser asks for one
        page.get_by_label("Reason").fill("loss went up")
        with page.expect_navigation():
            page.get_by_role("button", name="Roll back").click()
        assert page.get_by_role("alert").count() == 0
        assert (shown.complaints, shown.violations()) == ([], [])
    assert scenario.head("production") not in ("", before)


def test_each_page_is_sound_for_everybody(scenario: Scenario, browser: Browser) -> None:
    node, things = scenario.node(), Address("things", "latest")
    failed = scenario.deliver("five", license="CC-BY-NC-4.0").digest
    check(node, things, "pilot")
    proposed = adopt(node, scenario.spec(gates=GATES | {"pilot": {"require": ["nonempty"]}}), reason="less").digest
    paths = [
        request_path(node, version=scenario.head("pilot")),
        f"/datasets/things/proposals/{proposed[7:]}",
        f"/datasets/things/versions/{failed[7:]}/waive/pilot/license",
        "/datasets/things/targets/production/roll-back",
        "/datasets/things/targets/production/hold",
    ]
    with answering(node) as at:
        for path in paths:
            for who, size in ((INES.name, DESKTOP), (INES.name, PHONE), (f"{SCRIPT}{'x' * 200}", PHONE), ("", DESKTOP)):
                with visiting(browser, at("").url + path, who, size, dark=size is PHONE) as shown:
                    assert shown.page.locator("form.answer").count() == bool(who), (path, who)
                    assert (shown.complaints, shown.overflow(), shown.violations()) == ([], 0, []), (path, who)
                    assert "owned" not in shown.page.title()
