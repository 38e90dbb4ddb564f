"""Where naive clients of web servers and object stores are silently wrong: what they do, and what ours does."""

from __future__ import annotations

import base64
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
from obstore.exceptions import GenericError, InvalidPathError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, HTTPStore

from prefect_stagegate.errors import AccessDenied, ObjectChanged, SourceError, UsageError
from prefect_stagegate.plugins.azure.azure_options import EMULATED, EMULATED_KEY
from prefect_stagegate.sources import open_source
from prefect_stagegate.sources.buckets.bucket import BucketSource
from prefect_stagegate.testing.sources import listed, read
from prefect_stagegate.transport.objectstore.store import ObjectStore
from tests.plugins.clouds import Cloud
from tests.support.http_servers import Handler, file_server, http_server
from tests.support.webservers import nginx, rclone

BYTES = bytes(range(256)) * 40

ONCE: Any = {
    "max_retries": 0,
    "backoff": {"init_backoff": timedelta(0), "max_backoff": timedelta(0), "base": 2},
    "retry_timeout": timedelta(seconds=10),
}


def _gcs_store(server: Cloud, bucket: str) -> GCSStore:
    """The naive client of Google's protocol."""
    config: Any = {"base_url": server.endpoint_url, "skip_signature": True}
    return GCSStore(bucket, config=config, client_options={"allow_http": True})


def _azure_store(server: Cloud, container: str) -> AzureStore:
    """The naive client of Azure's protocol."""
    config: Any = {"account_name": EMULATED, "account_key": EMULATED_KEY, "endpoint": server.endpoint_url}
    return AzureStore(container, config=config, client_options={"allow_http": True})


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


def test_a_server_that_ignores_if_match_is_found_out(gcs: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    url, client = gcs.bucket("ignores-if-match"), gcs.client()
    client.pipe_file("ignores-if-match/a.bin", b"one")
    store = _gcs_store(gcs, "ignores-if-match")
    etag = obstore.head(store, "a.bin")["e_tag"]
    source = open_source(f"{url}/", gcs.storage_options)
    obj = listed(source)["a.bin"]
    assert obj.pin.kind == "generation"
    client.pipe_file("ignores-if-match/a.bin", b"two")
    assert bytes(obstore.get(store, "a.bin", options={"if_match": etag}).bytes()) == b"two"  # the naive client
    with pytest.raises(ObjectChanged):
        read(source, obj)


ODD = ("odd//key", "odd/new\nline", "odd/tab\tkey", "odd/../key", "odd/fine")


def test_one_odd_key_hides_no_other_on_google(gcs: Cloud) -> None:
    url, client = gcs.bucket("odd-keys"), gcs.client()
    for key in ODD:
        client.call(
            "POST", f"{gcs.endpoint_url}/upload/storage/v1/b/odd-keys/o", uploadType="media", name=key, data=b"x"
        )
    with pytest.raises(InvalidPathError):  # the naive client
        obstore.list(_gcs_store(gcs, "odd-keys")).collect()
    objects = listed(open_source(f"{url}/", gcs.storage_options))
    assert {"odd//key", "odd/new\nline", "odd/tab\tkey", "odd/fine"} <= set(objects)


@pytest.mark.system
def test_one_odd_key_hides_no_other_on_azure(azure: Cloud) -> None:
    from azure.storage.blob import ContainerClient

    url = azure.bucket("odd-keys")
    container = ContainerClient.from_connection_string(azure.client_options["connection_string"], "odd-keys")
    for key in ("odd/a", "odd/b//key", "odd/z"):
        container.upload_blob(key, b"x")
    with pytest.raises(InvalidPathError):  # the naive client
        obstore.list(_azure_store(azure, "odd-keys")).collect()
    assert set(listed(open_source(f"{url}/", azure.storage_options))) == {"odd/a", "odd/b//key", "odd/z"}


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


def test_listed_and_requested_etags_are_equal_on_google(gcs: Cloud) -> None:
    url, client = gcs.bucket("etags"), gcs.client()
    client.pipe_file("etags/a.bin", b"one")
    store = _gcs_store(gcs, "etags")
    (naive,) = obstore.list(store).collect()
    assert naive["e_tag"] != obstore.head(store, "a.bin")["e_tag"]
    source = BucketSource(f"{url}/", ObjectStore(store, store, url, gcs.endpoint_url), "")
    obj = listed(source)["a.bin"]
    assert (obj.pin.kind, obj.pin) == ("etag", source.find("a.bin").pin)
    assert read(source, obj) == b"one"


@pytest.mark.system
def test_listed_and_requested_etags_are_equal_on_azure(azure: Cloud) -> None:
    url, client = azure.bucket("etags"), azure.client()
    client.pipe_file("etags/a.bin", b"one")
    store = _azure_store(azure, "etags")
    (naive,) = obstore.list(store).collect()
    assert naive["e_tag"] != obstore.head(store, "a.bin")["e_tag"]
    source = open_source(f"{url}/", azure.storage_options)
    obj = listed(source)["a.bin"]
    assert (obj.pin.kind, obj.pin) == ("etag", source.find("a.bin").pin)
    assert read(source, obj) == b"one"


@pytest.mark.system
def test_a_server_that_ignores_versions_is_asked_by_etag(azure: Cloud) -> None:
    url, client = azure.bucket("no-versions"), azure.client()
    client.pipe_file("no-versions/a.bin", b"one")
    source = open_source(f"{url}/", azure.storage_options)
    obj = listed(source)["a.bin"]
    client.pipe_file("no-versions/a.bin", b"two")
    old: Any = {"version": "2020-01-01T00:00:00.0000000Z"}
    naive = obstore.get(_azure_store(azure, "no-versions"), "a.bin", options=old)
    assert bytes(naive.bytes()) == b"two"
    with pytest.raises(ObjectChanged):
        read(source, obj)


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


def test_a_refusal_says_who_asked(tmp_path: Path) -> None:
    with rclone("webdav", tmp_path, "--user", "me", "--pass", "right") as server:
        with pytest.raises(AccessDenied, match="anonymous reading"):
            list(open_source(f"webdav+{server.url}").list())
        with pytest.raises(AccessDenied, match="'me' with a password"):
            list(open_source(f"webdav+{server.url}", {"username": "me", "password": "wrong"}).list())
