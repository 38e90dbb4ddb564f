"""A small Hugging Face hub for tests: commits, listings in pages, large files behind a redirect, gates.

    with small_hub() as hub:
        hub.put("datasets/me/things", "a.bin", b"…")

What it answers follows the hub's API as huggingface_hub reads it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.http_servers import Handler, http_server

if TYPE_CHECKING:
    pass

LARGE = 1000
"""Files of so many bytes are kept as LFS files."""

_API = re.compile(r"/api/((?:datasets|models|spaces)/[^/]+/[^/]+)/(revision|tree|paths-info)/([^/]+)/?(.*)")
_FILE = re.compile(r"/((?:datasets/|spaces/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Seen(NamedTuple):
    """A request."""

    path: str
    token: str
    range: str


@dataclass
class SmallHub:
    """The state of the hub."""

    endpoint: str = ""
    gates: dict[str, str] = field(default_factory=dict)
    """The token that opens a repository; the others are open to all."""
    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    """Repository, commit, path: the content. The last commit is `main`."""
    rotten: set[str] = field(default_factory=set)
    """The files of which other bytes are given; of large ones by the content network."""
    cdn: str = ""
    """The address of the content network: the same server by another name."""
    page: int = 3
    """Entries that a listing gives at once."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    """What the content network holds, by SHA-256."""
    connections: int = 0
    """How many were opened."""
    seen: list[Seen] = field(default_factory=list)
    """Each request."""

    def put(self, repo: str, path: str, data: bytes) -> str:
        """Push a commit with a file more, or another content of it."""
        return self.put_all(repo, {path: data})

    def put_all(self, repo: str, files: Mapping[str, bytes]) -> str:
        """Push a commit with all of these files."""
        return self._push(repo, {**self.head(repo), **files})

    def remove(self, repo: str, path: str) -> str:
        """Push a commit without a file."""
        return self._push(repo, {name: data for name, data in self.head(repo).items() if name != path})

    def head(self, repo: str) -> dict[str, bytes]:
        """The files of the last commit."""
        return next(reversed(self.commits.get(repo, {"": {}}).values()))

    def _push(self, repo: str, files: dict[str, bytes]) -> str:
        commits = self.commits.setdefault(repo, {})
        commit = hashlib.sha1(f"{repo} {len(commits)}".encode()).hexdigest()
        commits[commit] = files
        self.blobs |= {_digests(data)[1]: data for data in files.values()}
        return commit


@contextmanager
def small_hub() -> Iterator[SmallHub]:
    """Run a hub for as long as the block runs."""
    hub = SmallHub()
    with http_server(type("Handler", (_Handler,), {"hub": hub})) as url:
        hub.endpoint, hub.cdn = url, url.replace("127.0.0.1", "localhost")
        yield hub


def described(path: str, data: bytes) -> dict[str, Any]:
    """A file as listings tell of it."""
    oid, sha256 = _digests(data)
    facts: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": oid}
    if len(data) >= LARGE:
        facts["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 134}
    return facts


@lru_cache(None)
def _digests(data: bytes) -> tuple[str, str]:
    """Git's digest of a file, and its SHA-256; of the same object they are made once."""
    oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return oid, hashlib.sha256(data).hexdigest()


class _Handler(Handler):
    hub: SmallHub
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # so that headers and body leave together, and no body waits for the headers' acknowledgement

    def setup(self) -> None:
        """Count the connection."""
        self.hub.connections += 1
        super().setup()

    def do_GET(self) -> None:
        """Answer; nothing is written but what the hub's API knows."""
        question = json.loads(self.read_body() or b"{}")
        headers = (self.headers.get(name, "") for name in ("authorization", "range"))
        self.hub.seen.append(Seen(self.path, *headers))
        address = urlsplit(self.path)
        path = unquote(address.path) if "/resolve/" in address.path or "/tree/" in address.path else address.path
        if api := _API.fullmatch(path):
            self._told(api[1], api[2], unquote(api[3]), api[4], {**parse_qs(address.query), **question})
        elif file := _FILE.fullmatch(path):
            repo = file[1] if file[1].count("/") > 1 else f"models/{file[1]}"
            self._file(repo, file[2], file[3])
        elif path.startswith("/cdn/"):
            self._content(*path.removeprefix("/cdn/").split("/"))
        else:
            self.respond(404, b"")

    do_HEAD = do_POST = do_GET

    def _files(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and its files; None when the request is refused, and that is answered."""
        wanted, token = self.hub.gates.get(repo), self.headers.get("authorization", "").removeprefix("Bearer ")
        commits = self.hub.commits.get(repo)
        if commits is None:
            self._refuse(401, "RepoNotFound")
            return None
        if wanted and token != wanted:
            self._refuse(403 if token else 401, "GatedRepo")
            return None
        commit = next(reversed(commits)) if revision == "main" else revision
        if commit not in commits:
            self._refuse(404, "RevisionNotFound")
            return None
        return commit, commits[commit]

    def _told(self, repo: str, what: str, revision: str, below: str, fields: dict[str, Any]) -> None:
        if (revision_files := self._files(repo, revision)) is None:
            return
        commit, files = revision_files
        if what == "revision":
            self._json({"id": repo, "sha": commit})
        elif what == "paths-info":
            folders = ({"type": "directory", "path": path, "size": 0, "oid": ""} for path in fields["paths"])
            items = [described(path, files[path]) for path in fields["paths"] if path in files]
            held = [folder for folder in folders if any(name.startswith(f"{folder['path']}/") for name in files)]
            self._json(items + held)
        else:
            self._tree(files, below, int(fields.get("cursor", ["0"])[0]))

    def _tree(self, files: dict[str, bytes], below: str, first: int) -> None:
        prefix, page = f"{below}/" if below else "", self.hub.page
        items = [described(path, data) for path, data in sorted(files.items()) if path.startswith(prefix)]
        if not items and below:
            self._refuse(404, "EntryNotFound")
            return
        after = f"{self.hub.endpoint}{self.path.partition('?')[0]}?recursive=true&cursor={first + page}"
        self._json(items[first : first + page], {"Link": f'<{after}>; rel="next"'} if len(items) > first + page else {})

    def _file(self, repo: str, revision: str, path: str) -> None:
        if (revision_files := self._files(repo, revision)) is None:
            return
        commit, files = revision_files
        data = files.get(path)
        if data is None:
            self._refuse(404, "EntryNotFound")
        elif sha256 := described(path, data).get("lfs", {}).get("oid"):
            location = f"{self.hub.cdn}/cdn/{'rotten' if path in self.hub.rotten else 'sound'}/{sha256}"
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data)), "X-Repo-Commit": commit}
            self.respond(302, b"", {"Location": location, **linked})
        else:
            given = data[::-1] if path in self.hub.rotten else data
            self._bytes(given, {"ETag": f'"{described(path, data)["oid"]}"', "X-Repo-Commit": commit})

    def _content(self, state: str, sha256: str) -> None:
        data = self.hub.blobs[sha256]
        self._bytes(data[::-1] if state == "rotten" else data, {})

    def _bytes(self, data: bytes, headers: dict[str, str]) -> None:
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", "")):
            start, end = int(wanted[1]), int(wanted[2]) + 1
            ranged = {**headers, "Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
            self.respond(206, memoryview(data)[start:end], ranged)
        else:
            self.respond(200, data, headers)

    def _refuse(self, status: int, code: str) -> None:
        self.respond(status, b"", {"X-Error-Code": code})

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        self.respond(200, json.dumps(value).encode(), headers)
