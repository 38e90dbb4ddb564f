"""Web servers whose folders have no end: the listing ends with what to do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from prefect_stagegate.errors import SourceError
from prefect_stagegate.sources import open_source
from prefect_stagegate.sources.selection.globs import GlobFilter
from prefect_stagegate.sources.walk import DEEPEST
from tests.support.http_servers import Handler, http_server


class Pages(Handler):
    """A web server whose folders hold folders."""

    protocol_version, wbufsize = "HTTP/1.1", 1 << 16
    names: tuple[str, ...] = ("again",)

    def do_GET(self) -> None:
        """A page that links to folders below."""
        links = "".join(f'<a href="{name}/">{name}</a>' for name in self.names)
        self.respond(200, links.encode(), {"Content-Type": "text/html"})


@pytest.fixture
def web() -> Iterator[str]:
    with http_server(Pages) as url:
        yield f"{url}/data/"


def test_web_folders_without_end_are_told(web: str) -> None:
    source = open_source(web)
    with pytest.raises(SourceError, match=f"deeper than {DEEPEST} names"):
        list(source.list())
    assert list(source.list(GlobFilter(exclude=("again/",)))) == []
    source.close()


def test_web_folders_that_multiply_are_told(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pages, "names", ("a", "b", "c"))
    source = open_source(web, most=500)
    with pytest.raises(SourceError, match="more files and folders than 500"):
        list(source.list())
    source.close()
