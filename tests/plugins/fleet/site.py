"""A site: nodes with caches of their own and blob servers, one catalog, and a web source that counts what is read."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from prefect_stagegate.cache import Cache
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address, Version
from prefect_stagegate.plugins.fleet.own_record import publish_record
from prefect_stagegate.plugins.fleet.peers.blob_server import CONNECTIONS, blob_app
from prefect_stagegate.serve.listening import listen, server_config
from prefect_stagegate.workspace import Workspace
from tests.support.changed_settings import change_settings
from tests.support.rawserver import RawServer, response

SITE = "dc1"
LATEST = Address("things", "latest")
_RANGE = re.compile(rb"\r\nRange: bytes=(\d+)-(\d+)")


class CountedSource:
    """A web server of files, with their SHA-256 in a manifest, that counts the bytes that it sends of each."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.sent: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._server = RawServer(self._answer)

    @property
    def url(self) -> str:
        return f"{self._server.url}/SHA256SUMS"

    def close(self) -> None:
        self._server.close()

    def _answer(self, head: bytes, _: socket.socket) -> bytes:
        method, target, _version = head.split(b"\r\n")[0].decode().split(" ")
        name = target.lstrip("/")
        if name == "SHA256SUMS":
            lines = [f"{hashlib.sha256(data).hexdigest()}  {key}\n" for key, data in self.files.items()]
            return response("".join(lines).encode())
        if (data := self.files.get(name)) is None:
            return response(b"", "404 Not Found")
        if method == "HEAD":
            return f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        if found := _RANGE.search(head):
            start, end = int(found[1]), int(found[2]) + 1
            answer = response(
                data[start:end], "206 Partial Content", {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
            )
        else:
            start, end, answer = 0, len(data), response(data)
        with self._lock:
            self.sent[name] += end - start
        return answer


class Site:
    """The nodes of one site.

    Args:
        folder: Holds the catalog and the caches.
        files: What the source has.
        settings: Settings of all nodes, over their own.
    """

    def __init__(self, folder: Path, files: dict[str, bytes], **settings: Any) -> None:
        self._folder, self._settings = folder, {"site": SITE, "idle_timeout": 5.0, **settings}
        self._stack = ExitStack()
        self.source = CountedSource(files)
        self._stack.callback(self.source.close)
        self.size = sum(map(len, files.values()))

    def close(self) -> None:
        self._stack.close()

    @property
    def spec(self) -> dict[str, Any]:
        source = {"url": self.source.url, "options": {"manifest": "checksums"}}
        return {"stagegate": 1, "dataset": LATEST.dataset, "sources": [source]}

    def node(self, name: str, url: str | None = "", *, record: bool = True, **settings: Any) -> Workspace:
        """A node, with a record; `url` is that of its blob server: a running one by default, None for no server."""
        opened = open_workspace(self._folder / name, self._folder / "catalog")
        if not url and url is not None:
            url = self._stack.enter_context(blob_server(opened.cache))
        workspace = change_settings(opened, **{**self._settings, "node": name, "peer_url": url or "", **settings})
        if record:
            publish_record(workspace)
        return workspace

    def make(self) -> Version:
        """Make the version on a node outside of the site, and forget what was read for it."""
        version = stage(open_workspace(self._folder / "outside", self._folder / "catalog"), self.spec)
        self.source.sent.clear()
        return version

    def read(self) -> int:
        """Bytes that the source sent since."""
        return self.source.sent.total()


@contextmanager
def blob_server(cache: Cache, token: str = "", bandwidth: int | None = None, **tls: Any) -> Iterator[str]:
    """Run a node's blob server in a thread; gives its URL. `tls` are uvicorn's options."""
    server = uvicorn.Server(server_config(blob_app(cache, token, bandwidth), CONNECTIONS, **tls))
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        host = "https://localhost" if tls else "http://127.0.0.1"
        yield f"{host}:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


def stage_together(*nodes: Workspace) -> list[Version]:
    """Stage the newest version on all nodes at the same time, each knowing of the others."""
    names = [node.settings.node for node in nodes]
    with ThreadPoolExecutor(len(nodes)) as pool:
        return list(pool.map(lambda node: stage(node, LATEST, peers=names), nodes))
