"""Servers of the web: nginx with and without TLS, rclone's WebDAV, and the tests' own Hugging Face hub."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from benchmarks.sources.family import Family, Options, linked
from benchmarks.sources.obstores import client_options, copy_objects

REPOSITORY = "datasets/measured/files"


def web_store(url: str, **options: Any) -> Any:
    """What lies below a URL."""
    from obstore.store import HTTPStore

    return HTTPStore.from_url(url.rstrip("/"), client_options=client_options(**options))


class Https(Family):
    client = "obstore, names from nginx's list"
    imports = ("obstore.store", "ssl", "urllib.request")

    @contextmanager
    def serve(self, files: Path, folder: Path) -> Iterator[tuple[str, Options]]:
        from tests.support.webservers import nginx

        with nginx(folder) as server:
            linked(files, server.root)
            yield f"{server.url}{files.name}/", {"verify": server.ca_file}

    def copy(self, url: str, options: Options, out: Path) -> None:
        own = {"root_certificate": Path(options["verify"]).read_bytes()} if options else {}
        trusted = ssl.create_default_context(cafile=options["verify"]) if options else None
        with urlopen(url, context=trusted) as answer:  # noqa: S310 - our own address
            names = [one["name"] for one in json.load(answer)]
        copy_objects(web_store(url, **own), out, names)


class Http(Https):
    @contextmanager
    def serve(self, files: Path, folder: Path) -> Iterator[tuple[str, Options]]:
        from prefect_stagegate.testing.servers import free_port
        from tests.support.webservers import nginx

        port = free_port()
        with nginx(folder, f"listen 127.0.0.1:{port};") as server:
            linked(files, server.root)
            yield f"http://127.0.0.1:{port}/{files.name}/", {}


class WebDav(Family):
    client = "obstore, with its list"
    imports = ("obstore.store",)

    @contextmanager
    def serve(self, files: Path, folder: Path) -> Iterator[tuple[str, Options]]:
        from tests.support.webservers import rclone

        # Tests want no directory remembered; with thousands of files, each request would read all of their names.
        with rclone("webdav", folder, "--read-only", "--dir-cache-time", "1h") as server:
            linked(files, server.root)
            yield f"webdav+{server.url}{files.name}/", {}

    def copy(self, url: str, options: Options, out: Path) -> None:
        del options
        place = url.removeprefix("webdav+").rstrip("/")
        copy_objects(web_store(place.rpartition("/")[0]), out)


class Hub(Family):
    """Ours checks large files by the SHA-256 that the hub tells; the client checks nothing."""

    client = "huggingface_hub's list, obstore"
    imports = ("obstore.store", "huggingface_hub.hf_api")

    @contextmanager
    def serve(self, files: Path, folder: Path) -> Iterator[tuple[str, Options]]:
        from tests.plugins.hub.small_hub import small_hub

        del folder
        with small_hub() as hub:
            hub.page = 1000  # as the real one
            hub.put_all(REPOSITORY, {file.name: file.read_bytes() for file in files.iterdir()})
            yield f"hf://{REPOSITORY}/", {"endpoint": hub.endpoint}

    def copy(self, url: str, options: Options, out: Path) -> None:
        from huggingface_hub import HfApi

        del url
        endpoint = options["endpoint"]
        names = HfApi(endpoint, token=False).list_repo_files(REPOSITORY.partition("/")[2], repo_type="dataset")
        copy_objects(web_store(f"{endpoint}/{REPOSITORY}/resolve/main"), out, names)
