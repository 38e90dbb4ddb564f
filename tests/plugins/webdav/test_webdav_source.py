"""WebDAV against the contract of sources, and where naive clients of it are wrong."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import GenericError, UnauthenticatedError
from obstore.store import HTTPStore

from prefect_stagegate.errors import AccessDenied
from prefect_stagegate.sources import open_source
from prefect_stagegate.testing.sources import Place, SourceContract, listed, read
from tests.support.places import NOBODY, RCLONE_LACKS, WIRE, folder
from tests.support.webservers import PASSWORD as WEB_PASSWORD
from tests.support.webservers import USER as WEB_USER
from tests.support.webservers import rclone


class TestWebDav(SourceContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        with rclone("webdav", tmp_path, "--read-only", "--user", WEB_USER, "--pass", WEB_PASSWORD) as server:
            options = {"username": WEB_USER, "password": WEB_PASSWORD}
            yield folder(
                server.root,
                f"webdav+{server.url}",
                options=options,
                denied={**options, "password": "wrong"},
                anonymous={},
                lacks=RCLONE_LACKS,
                unreachable=(f"webdav+http://{NOBODY}/", {}),
                library=("xml.etree.ElementTree.iterparse", WIRE),
            )


BYTES = bytes(range(256)) * 40


def test_name_that_is_not_utf_8_hides_no_other_on_webdav(tmp_path: Path) -> None:
    with rclone("webdav", tmp_path, "--read-only") as server:
        (server.root / "fine.bin").write_bytes(BYTES)
        (server.root / os.fsdecode(b"odd-\xff.bin")).write_bytes(BYTES)
        with pytest.raises(GenericError, match="non-unicode"):  # the naive client
            obstore.list(HTTPStore(server.url, client_options={"allow_http": True})).collect()
        source = open_source(f"webdav+{server.url}")
        assert read(source, listed(source)["fine.bin"]) == BYTES


def test_keys_begin_at_the_url_and_passwords_go_along_on_webdav(tmp_path: Path) -> None:
    with rclone("webdav", tmp_path, "--read-only", "--user", "me", "--pass", "right") as server:
        (server.root / "sub").mkdir()
        (server.root / "sub/a.bin").write_bytes(BYTES)
        naive = HTTPStore(f"{server.url}sub/".replace("://", "://me:right@"), client_options={"allow_http": True})
        with pytest.raises(UnauthenticatedError):
            obstore.list(naive).collect()
        headers = {"authorization": "Basic " + base64.b64encode(b"me:right").decode()}
        naive = HTTPStore(f"{server.url}sub/", client_options={"allow_http": True, "default_headers": headers})
        assert [meta["path"] for meta in obstore.list(naive).collect()] == ["sub/a.bin"]
        source = open_source(f"webdav+{server.url}sub/", {"username": "me", "password": "right"})
        assert {key: read(source, obj) for key, obj in listed(source).items()} == {"a.bin": BYTES}


def test_a_refusal_says_who_asked(tmp_path: Path) -> None:
    with rclone("webdav", tmp_path, "--user", "me", "--pass", "right") as server:
        with pytest.raises(AccessDenied, match="anonymous reading"):
            list(open_source(f"webdav+{server.url}").list())
        with pytest.raises(AccessDenied, match="'me' with a password"):
            list(open_source(f"webdav+{server.url}", {"username": "me", "password": "wrong"}).list())
