"""Reports in Debian's Chromium: readable on every screen, by keyboard, without scripts, and whatever data wrote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from prefect_stagegate.show import Report
from tests.plugins.pages.renderers import to_html
from tests.plugins.reports import samples
from tests.plugins.test_report_parts import rewritten
from tests.support.browser import DESKTOP, PHONE, OpenPage, chromium, opened
from tests.unit.test_report import HOSTILE

pytestmark = pytest.mark.system
SAMPLES = samples()
LONG = "x" * 10_000
SHOWN = {"desktop": (DESKTOP, False), "phone": (PHONE, False), "dark": (DESKTOP, True)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def written(folder: Path, report: Report) -> str:
    file = folder / "report.html"
    file.write_text(to_html(report), encoding="utf-8")
    return file.as_uri()


def hostile(text: str) -> Report:
    harmful: Report = rewritten(SAMPLES["refused"], text)
    return harmful


@pytest.mark.parametrize("name", SAMPLES)
def test_page_is_whole_on_every_screen(browser: Browser, tmp_path: Path, name: str) -> None:
    url = written(tmp_path, SAMPLES[name])
    for size, dark in SHOWN.values():
        with opened(browser, url, size=size, dark=dark) as shown:
            # What a long page has not laid out yet would escape both looks.
            shown.page.add_style_tag(content="* { content-visibility: visible !important }")
            assert shown.overflow() == 0
            assert shown.violations() == []
            assert shown.complaints == []


@pytest.mark.parametrize("name", [*SAMPLES])
def test_first_screen_has_decision_turn_and_commands(browser: Browser, tmp_path: Path, name: str) -> None:
    with opened(browser, written(tmp_path, SAMPLES[name])) as shown:
        for text in (SAMPLES[name].headline, "Whose turn", "What to do"):
            box = shown.page.get_by_text(text, exact=True).first.bounding_box()
            assert box, text
            assert box["y"] < DESKTOP[1], text


def test_button_copies_the_command(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, written(tmp_path, SAMPLES["waiting"])) as shown:
        shown.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        button = shown.page.get_by_role("button", name="Copy").first
        button.click()
        shown.page.get_by_role("button", name="Copied").wait_for()
        assert shown.page.evaluate("() => navigator.clipboard.readText()") == SAMPLES["waiting"].steps[0]


def test_page_is_complete_without_scripts(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, written(tmp_path, SAMPLES["waiting"]), script=False) as shown:
        assert shown.complaints == []
        assert shown.page.get_by_role("button").count() == 0
        assert shown.page.get_by_text(SAMPLES["waiting"].steps[0]).first.is_visible()


def test_keyboard_reaches_everything_in_order(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, written(tmp_path, SAMPLES["waiting"])) as shown:
        page, reached = shown.page, []
        focused = "() => document.activeElement.tagName + ' ' + document.activeElement.textContent.trim()"
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.append(page.evaluate(focused))
        assert reached[0] == "A What to do"
        copies = [place for place, text in enumerate(reached) if text == "BUTTON Copy"]
        assert copies
        assert copies[0] < reached.index("A Checks")
        assert any(text.startswith("SUMMARY Files that differ") for text in reached)
        summary = page.locator("summary").first
        summary.focus()
        page.keyboard.press("Enter")
        assert page.locator("details[open]").count() == 1


def test_print_leaves_out_buttons_and_shows_all(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, written(tmp_path, SAMPLES["refused"])) as shown:
        shown.page.emulate_media(media="print")
        assert not shown.page.get_by_role("button").first.is_visible()
        assert shown.page.pdf(path=tmp_path / "report.pdf")[:5] == b"%PDF-"


def harmless(shown: OpenPage) -> None:
    assert shown.complaints == []
    assert shown.overflow() == 0
    assert shown.page.evaluate("() => [window.owned, document.scripts.length, document.images.length]") == [None, 1, 0]


@pytest.mark.parametrize("text", [*HOSTILE, LONG, "\u202e" + "כתב" * 50, "</script><script>window.owned = 1</script>"])
def test_hostile_texts_run_nothing_and_break_nothing(browser: Browser, tmp_path: Path, text: str) -> None:
    url = written(tmp_path, hostile(text))
    for size in (DESKTOP, PHONE):
        with opened(browser, url, size=size) as shown:
            harmless(shown)


def test_long_names_of_checks_break_no_layout(browser: Browser, tmp_path: Path) -> None:
    rows = tuple(replace(row, check=f"a_plugin_s_check_with_a_name_{'x' * 60}") for row in SAMPLES["refused"].rows)
    with opened(browser, written(tmp_path, replace(SAMPLES["refused"], rows=rows)), size=PHONE) as shown:
        harmless(shown)
