"""Each page in a real browser: keyboard, barriers, phone, dark colours, and texts of strangers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from prefect_stagegate.model import Address
from prefect_stagegate.workspace import Workspace
from tests.plugins.pages.page_catalogs import CASES, LARGE, fill
from tests.plugins.pages.page_server import page_server, text_of
from tests.support.browser import DESKTOP, PHONE, chromium, opened
from tests.support.versions import read_seal

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return fill(tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def url(node: Workspace) -> Iterator[str]:
    with page_server(node) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def pages_of(node: Workspace, case: str) -> list[str]:
    """The addresses of all pages of a dataset."""
    digests = [entry.digest.removeprefix("sha256:") for entry in node.catalog.history(case, "latest")]
    newest, oldest = digests[-1], digests[0]
    version = f"/datasets/{case}/versions/{newest}"
    compare = f"/datasets/{case}/compare?old={oldest}&new={newest}"
    return [f"/datasets/{case}", f"/datasets/{case}/policy", version, f"{version}/files", compare]


def look(browser: Browser, address: str) -> None:
    """Open a page wide and on a phone, light and dark; nothing may be wrong with it."""
    for size, dark in ((DESKTOP, False), (PHONE, True)):
        with opened(browser, address, size=size, dark=dark) as shown:
            assert shown.complaints == []
            assert shown.overflow() == 0, address
            assert shown.violations() == [], address
            assert "owned" not in shown.page.title()
            assert shown.page.locator("script").count() == 1
            assert shown.page.locator("main img, main iframe, main object").count() == 0


@pytest.mark.parametrize("case", CASES)
def test_every_page_of_every_case_is_sound(case: str, node: Workspace, url: str, browser: Browser) -> None:
    paths = pages_of(node, case)
    for path in paths + re.findall(r'href="(/[^"]+/decisions/[^"]+)"', text_of(url + paths[2]))[:1]:
        look(browser, url + path)


def test_what_plugins_add_is_on_the_pages(node: Workspace, url: str) -> None:
    held = pages_of(node, "held")[2]
    (decision, *_) = re.findall(r'href="(/[^"]+/decisions/[^"]+)"', text_of(url + held))
    passed, _, version, _, compare = pages_of(node, "passed")
    sections = {
        passed: "Trends",
        version: "Runs that used it",
        compare: "Row changes",
        decision: "Held",
    }
    for path, title in sections.items():
        assert f">{title}</h2>" in text_of(url + path), path
    assert '<span class="tag fail">fail</span>' in text_of(url + version).split(">metrics</th>")[1][:200]


@pytest.mark.parametrize("path", ["/", "/?all=1", "/?for=%3Cscript%3E", "/datasets", "/nodes", "/nodes/gpu-1"])
def test_pages_of_all_datasets_are_sound(path: str, url: str, browser: Browser) -> None:
    look(browser, url + path)


@pytest.mark.parametrize("path", ["/nodes/gpu-3", "/nothing", "/datasets/nothing"])
def test_hostile_nodes_and_errors_are_sound(path: str, url: str, browser: Browser) -> None:
    for size in (DESKTOP, PHONE):
        with opened(browser, url + path, size=size) as shown:
            assert [text for text in shown.complaints if "404" not in text] == []
            assert (shown.overflow(), shown.violations()) == (0, [])
            assert "owned" not in shown.page.title()


def test_words_of_standings_are_not_broken(url: str, browser: Browser) -> None:
    texts = "all => all.map(each => { const text = document.createRange(); text.selectNodeContents(each); "
    lines = texts + "return new Set([...text.getClientRects()].map(box => box.top)).size })"
    words_of = {
        "/?all=1": ".verdict .tag",
        "/nodes": ".verdict .tag",
        "/nodes/gpu-1": ".state",
        "/datasets/passed/policy": ".state",
    }
    for path, words in words_of.items():
        with opened(browser, url + path) as shown:
            assert set(shown.page.locator(words).evaluate_all(lines)) == {1}


def test_keyboard_reaches_content_and_all_links_in_order(node: Workspace, url: str, browser: Browser) -> None:
    with opened(browser, f"{url}{pages_of(node, 'passed')[0]}") as shown:
        page = shown.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"
        elements = "main a[href], main button, main select, main input, main [tabindex='0'], main summary"
        for position in range(page.locator(elements).count()):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                "elements => [...document.querySelectorAll(elements)].indexOf(document.activeElement)", elements
            )
            assert focused == position
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none"


def test_pages_work_without_script(node: Workspace, url: str, browser: Browser) -> None:
    with opened(browser, f"{url}/", script=False) as shown:
        page = shown.page
        assert page.locator("code.command").count() > 0
        assert page.locator("button.copy").count() == 0
        page.get_by_role("link", name="Datasets", exact=True).click()
        page.get_by_role("link", name="passed").first.click()
        page.get_by_role("button", name="Compare").click()
        assert page.locator("h1").inner_text() == "What changed in passed"
        assert shown.complaints == []


def test_button_copies_the_command(url: str, browser: Browser) -> None:
    with opened(browser, f"{url}/") as shown:
        page = shown.page
        page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
        command = page.locator("code.command").first.inner_text()
        page.locator("button.copy").first.click()
        page.get_by_text("Copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == command


def test_decision_opens_its_report(node: Workspace, url: str, browser: Browser) -> None:
    with opened(browser, f"{url}{pages_of(node, 'refused')[2]}") as shown:
        shown.page.locator("a[href*='/decisions/']").first.click()
        assert "refused is refused for pilot" in shown.page.locator("h1").inner_text()
        assert shown.page.get_by_role("navigation", name="Pages").get_by_role("link", name="Inbox").is_visible()
        assert str(shown.page.locator(".crumbs a").last.get_attribute("href")) in shown.page.url
        assert shown.complaints == []
        assert shown.violations() == []


def test_pages_tell_the_story_of_each_case(node: Workspace, url: str) -> None:
    inbox = text_of(f"{url}/")
    for case, standing in (("refused", "refused"), ("inconclusive", "inconclusive"), ("waiting", "waiting")):
        drawn, row = re.findall(rf"<tr><th[^>]*><a href=\"/datasets/{case}\">.*?</tr>", inbox, re.DOTALL)
        assert f'<span class="tag {standing}">' in row
        assert f'<span class="tag {standing}">' in drawn
        assert "stagegate " in row
    passed = text_of(url + pages_of(node, "passed")[2])
    assert "Distribution of fare" in passed
    # What failed is open, and the rest opens on demand.
    assert re.findall(r"<details( open)?><summary>(.*?)</summary>", passed) == [
        (" open", "trips, 1 of 2 passed"),
        (" open", "trips, 1,000 rows, 2 columns"),
    ]
    policy = text_of(f"{url}/datasets/passed/policy")
    for text in ("column values to be between, min_value 0", "Every trip has a `b`.", "a sample of 1/10", "unique"):
        assert text in policy
    withdrawn = node.catalog.history("withdrawn", "latest")[-1].digest.removeprefix("sha256:")
    assert "withdrawn from production" in text_of(f"{url}/datasets/withdrawn/versions/{withdrawn}")
    assert "No check ran about it yet" in text_of(url + pages_of(node, "empty")[2])


def test_ten_thousand_files_are_shown_in_parts(node: Workspace, url: str) -> None:
    files = url + pages_of(node, "large")[3]
    first, last = text_of(files), text_of(f"{files}?page=100")
    assert f"1 to 100 of {LARGE:,}" in first
    assert "009999-long-name" in last
    assert max(len(first), len(last)) < 100_000
    digest = node.catalog.resolve(Address("large", "latest"))
    assert read_seal(node.catalog, "large", digest).files == LARGE
