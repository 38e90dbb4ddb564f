"""Reports as HTML and JUnit whose files have hostile names: tags, attributes and links are those of harmless names."""

from __future__ import annotations

from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from tests.plugins.pages.renderers import to_html, to_junit
from tests.support.hostile_names import BATCHES, acting, report_about


class Tags(HTMLParser):
    """The tags of a page with the names of their attributes, and where its links lead."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        links = [value or "" for name, value in attrs if name in ("href", "src")]
        self.tags.append((tag, *sorted(name for name, _ in attrs), *links))


def tags(page: str) -> list[tuple[str, ...]]:
    """All but the code spans, which backticks make: those of commands, and so those of names."""
    return [tag for tag in Tags(page).tags if tag != ("code",)]


@pytest.mark.parametrize("names", BATCHES, ids=range(len(BATCHES)))
def test_pages_have_the_shape_that_harmless_names_give_them(names: list[str]) -> None:
    hostile, harmless = report_about(names), report_about([f"name{number}" for number in range(len(names))])

    assert tags(to_html(hostile)) == tags(to_html(harmless))
    assert [element.tag for element in ET.fromstring(to_junit(hostile)).iter()] == [
        element.tag for element in ET.fromstring(to_junit(harmless)).iter()
    ]
    for text in (to_html(hostile), to_junit(hostile)):
        assert not acting(text)
