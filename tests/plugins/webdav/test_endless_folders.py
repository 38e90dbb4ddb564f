"""WebDAV servers whose folders have no end: the listing ends with what to do."""

from __future__ import annotations

import pytest

from prefect_stagegate.errors import SourceError
from prefect_stagegate.sources import open_source
from prefect_stagegate.sources.selection.globs import GlobFilter
from prefect_stagegate.sources.walk import DEEPEST
from tests.support.http_servers import Handler, http_server


class Folders(Handler):
    """A WebDAV server whose folders hold folders."""

    protocol_version, wbufsize = "HTTP/1.1", 1 << 16
    names: tuple[str, ...] = ("again",)

    def do_PROPFIND(self) -> None:
        """Folders below."""
        self.read_body()
        paths = [self.path] if self.headers["Depth"] == "0" else [f"{self.path}{name}/" for name in self.names]
        collection = "<D:propstat><D:status>HTTP/1.1 200 OK</D:status><D:prop><D:resourcetype><D:collection/>"
        collection += "</D:resourcetype></D:prop></D:propstat>"
        responses = "".join(f"<D:response><D:href>{path}</D:href>{collection}</D:response>" for path in paths)
        page = f'<D:multistatus xmlns:D="DAV:">{responses}</D:multistatus>'
        self.respond(207, page.encode(), {"Content-Type": "application/xml"})


def test_folders_without_end_are_told() -> None:
    with http_server(Folders) as url:
        source = open_source(f"webdav+{url}/data/")
        with pytest.raises(SourceError, match=f"deeper than {DEEPEST} names"):
            list(source.list())
        assert list(source.list(GlobFilter(exclude=("again/",)))) == []
        source.close()


def test_folders_that_multiply_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Folders, "names", ("a", "b", "c"))
    with http_server(Folders) as url:
        source = open_source(f"webdav+{url}/data/", most=500)
        with pytest.raises(SourceError, match="more files and folders than 500"):
            list(source.list())
        source.close()
