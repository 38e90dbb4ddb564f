"""Where naive clients of web servers and object stores are silently wrong: what they do, and what ours does."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import ssl
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import obstore
import pytest
from obstore.exceptions import GenericError
from obstore.store import HTTPStore

from prefect_stagegate.errors import SourceError, UsageError
from prefect_stagegate.sources import open_source
from prefect_stagegate.testing.sources import listed, read
from tests.support.http_servers import Handler, file_server, http_server
from tests.support.webservers import nginx

BYTES = bytes(range(256)) * 40

ONCE: Any = {
    "max_retries": 0,
    "backoff": {"init_backoff": timedelta(0), "max_backoff": timedelta(0), "base": 2},
    "retry_timeout": timedelta(seconds=10),
}


@pytest.fixture
def website(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Python's own server, which knows no ranges, and its folder."""
    root = tmp_path / "web"
    root.mkdir()
    with file_server(root) as url:
        yield f"{url}/", root


def test_whole_file_from_a_server_without_ranges_is_not_spliced(website: tuple[str, Path]) -> None:
    url, root = website
    (root / "a.bin").write_bytes(BYTES)
    assert fsspec.filesystem("http").cat_file(f"{url}a.bin", start=10, end=20) == BYTES  # the naive client
    source = open_source(url)
    obj = listed(source)["a.bin"]
    assert read(source, obj, 10, 20) == BYTES[10:20]
    assert not getattr(source, "ranges", True)


class _Encoding(Handler):
    """Compresses whatever it was asked for."""

    def do_GET(self) -> None:
        self.respond(200, gzip.compress(BYTES), {"Content-Encoding": "gzip"})

    do_HEAD = do_GET


def test_what_a_server_encodes_unasked_is_refused() -> None:
    with http_server(_Encoding) as url:
        source = open_source(f"{url}/a.bin")
        (obj,) = source.list()
        with pytest.raises(SourceError, match="compressed the response"):
            read(source, obj)


@pytest.mark.system
def test_nginx_s_compression_changes_neither_sizes_nor_ranges(tmp_path: Path) -> None:
    with nginx(tmp_path / "nginx") as server:
        (server.root / "a.txt").write_bytes(b"a" * 100_000)
        naive = fsspec.filesystem("http", ssl=ssl.create_default_context(cafile=server.ca_file))
        assert len(naive.cat_file(f"{server.url}a.txt", start=5, end=9)) == 100_000
        source = open_source(server.url, {"verify": server.ca_file})
        obj = listed(source)["a.txt"]
        assert (obj.size, read(source, obj, 5, 9)) == (100_000, b"aaaa")


@pytest.mark.system
def test_a_certificate_is_believed_by_its_authority_alone(tmp_path: Path) -> None:
    with nginx(tmp_path / "nginx") as server:
        (server.root / "a.bin").write_bytes(BYTES)
        with pytest.raises(SourceError, match="not trusted") as caught:
            list(open_source(server.url).list())
        assert "verify" in caught.value.hint
        assert not caught.value.retryable
        assert list(listed(open_source(server.url, {"verify": server.ca_file}))) == ["a.bin"]


@pytest.mark.system
def test_self_signed_certificate_is_trusted_where_it_is_named(tmp_path: Path) -> None:
    own, key = tmp_path / "own.pem", tmp_path / "own.key"
    words = "req -x509 -nodes -days 2 -newkey rsa:2048 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run(["openssl", *words.split(), "-keyout", key, "-out", own], check=True, capture_output=True)
    (tmp_path / "web").mkdir()
    (tmp_path / "web/a.bin").write_bytes(BYTES)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own, key)
    with file_server(tmp_path / "web", "localhost", context) as server:
        url = f"{server}/"
        naive = HTTPStore(url, client_options={"root_certificate": own.read_bytes()}, retry_config=ONCE)
        with pytest.raises(GenericError):
            obstore.head(naive, "a.bin")
        source = open_source(url, {"verify": str(own)})
        assert read(source, source.find("a.bin")) == BYTES


@pytest.mark.system
def test_nginx_s_pin_is_weak_as_a_change_within_a_second_shows(tmp_path: Path) -> None:
    with nginx(tmp_path / "nginx") as server:
        file = server.root / "a.bin"
        file.write_bytes(b"one")
        os.utime(file, (1_700_000_000, 1_700_000_000))
        source = open_source(server.url, {"verify": server.ca_file})
        obj = listed(source)["a.bin"]
        naive = HTTPStore(server.url, client_options={"root_certificate": Path(server.ca_file).read_bytes()})
        etag = obstore.head(naive, "a.bin")["e_tag"]
        file.write_bytes(b"two")
        os.utime(file, (1_700_000_000, 1_700_000_000))
        assert bytes(obstore.get(naive, "a.bin", options={"if_match": etag}).bytes()) == b"two"
        assert (obj.pin.strength, read(source, obj)) == ("weak", b"two")


@pytest.mark.parametrize("name", ["SHA256SUMS", "tagged"])
def test_a_manifest_s_checksums_pin_and_prove(website: tuple[str, Path], name: str) -> None:
    url, root = website
    digest = hashlib.sha256(BYTES).hexdigest()
    (root / "a b.bin").write_bytes(BYTES)
    (root / "other.bin").write_bytes(b"is not named")
    (root / "SHA256SUMS").write_text(f"{digest}  a b.bin\n")
    (root / "tagged").write_text(f"SHA256 (a b.bin) = {digest}\n")
    source = open_source(f"{url}{name}", {"manifest": "checksums"})
    (obj,) = source.list()
    assert (obj.key, obj.pin.kind, obj.pin.strength) == ("a b.bin", "sha256", "strong")
    assert obj.checksums == (("sha256", digest),)
    assert read(source, obj) == BYTES


def test_croissant_and_lists_name_objects(website: tuple[str, Path]) -> None:
    url, root = website
    (root / "data").mkdir()
    (root / "data/a.bin").write_bytes(BYTES)
    digest = hashlib.sha256(BYTES).hexdigest()
    (root / "list.txt").write_text("# all of it\ndata/a.bin\n")
    file = {"@type": "cr:FileObject", "contentUrl": "data/a.bin", "sha256": digest}
    described = {"distribution": [file, {"@type": "cr:FileSet", "includes": "*.csv"}]}
    (root / "croissant.json").write_text(json.dumps(described))
    for name, kind in (("list.txt", "list"), ("croissant.json", "croissant")):
        source = open_source(f"{url}{name}", {"manifest": kind})
        assert {key: read(source, obj) for key, obj in listed(source).items()} == {"data/a.bin": BYTES}


def test_what_is_no_manifest_is_refused(website: tuple[str, Path]) -> None:
    url, root = website
    (root / "SHA256SUMS").write_text("not a digest\n")
    with pytest.raises(SourceError, match="Line 1"):
        list(open_source(f"{url}SHA256SUMS", {"manifest": "checksums"}).list())
    with pytest.raises(UsageError, match="did you mean 'checksums'"):
        open_source(f"{url}SHA256SUMS", {"manifest": "checksum"})
