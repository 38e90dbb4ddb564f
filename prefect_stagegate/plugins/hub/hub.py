"""The Hugging Face hub: the files of a dataset's, model's or space's repository at one commit.

A listing first resolves the revision to a commit. Every read names that commit, so that listed files stay readable
while others push. A file's pin is the digest of its content: SHA-256 for large files (LFS, Xet), else git's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote

from prefect_stagegate.errors import ObjectVanished, SourceError, UsageError
from prefect_stagegate.model import CredentialLife, Pin, SourceObject
from prefect_stagegate.plugins.hub.hub_client import Hub
from prefect_stagegate.sources.adapter import Wanted, everything
from prefect_stagegate.sources.http_source import HttpReads
from prefect_stagegate.sources.terms import Terms
from prefect_stagegate.transport.http import Request, Response

_URL = re.compile(
    r"hf://(?:(?P<kind>datasets|models|spaces)/)?(?P<repo>[^/@]+/[^/@]+)"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(?P<path>.*))?"
)


@dataclass(frozen=True, slots=True)
class Repository:
    """The repository, revision and path that a URL names."""

    kind: str
    """`datasets`, `models` or `spaces`."""
    name: str
    revision: str
    """A branch, a tag or a commit."""
    path: str
    """A folder or a file; empty for the whole repository."""

    @classmethod
    def parse(cls, url: str) -> Repository:
        """Read `hf://datasets/owner/name@revision/path`; without `datasets/` it names a model.

        >>> Repository.parse("hf://datasets/squad-org/squad@refs/convert/parquet/plain/")
        Repository(kind='datasets', name='squad-org/squad', revision='refs/convert/parquet', path='plain/')

        Raises:
            UsageError: It names no repository.
        """
        match = _URL.fullmatch(url)
        if not match:
            raise UsageError(f"{url} names no repository", hint="It looks like hf://datasets/owner/name@revision/path.")
        revision = unquote(match["revision"] or "main")
        return cls(match["kind"] or "models", match["repo"], revision, match["path"] or "")

    @property
    def api(self) -> str:
        """The path of its API."""
        return f"/api/{self.kind}/{self.name}"

    @property
    def files(self) -> str:
        """The path below which its files lie."""
        return f"/{self.name}" if self.kind == "models" else f"/{self.kind}/{self.name}"


class HubSource(HttpReads):
    """A repository of the hub, a folder of it (with or without the slash at its end) or one file.

    Args:
        url: `hf://datasets/owner/name@revision/path`, `hf://owner/name` for a model.
        options: `token` (False for none; default: HF_TOKEN, or the stored login) and `endpoint` (default: HF_ENDPOINT).
        terms: Its idle time and permitted hosts apply.

    Raises:
        MissingExtra: huggingface_hub is not installed.
        UsageError: The URL names no repository, or an option is unknown.
    """

    def __init__(self, url: str, options: Mapping[str, Any], terms: Terms) -> None:
        super().__init__()
        self.url = url
        self._repo = Repository.parse(url)
        self._hub = Hub(url, options, terms)
        place = "/".join(filter(None, (self._repo.kind, self._repo.name, self._repo.path)))
        self.endpoint = self._hub.endpoint
        self.identity = f"{self.endpoint} hf://{place}"
        self._folder: str | None = None

    def credential_life(self) -> CredentialLife:
        """A hub's token does not say when it expires."""
        if self._hub.anonymous:
            return CredentialLife("none", "anonymous reading")
        return CredentialLife("static", "a token of the hub")

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted file of the commit at which the revision is now, a page at a time."""
        commit, path = self._commit(), self._repo.path.rstrip("/")
        single = self._single_file(commit)
        if single:
            key = path.rpartition("/")[2]
            if wanted(key):
                yield _object(key, single, commit)
            return
        folder = f"/{quote(path)}" if path else ""
        for item in self._hub.pages(f"{self._repo.api}/tree/{commit}{folder}?recursive=true"):
            with self._hub.parsing():
                key = str(item["path"]).removeprefix(f"{path}/" if path else "")
                listed = _object(key, item, commit) if item["type"] == "file" else None
            if listed and wanted(key):
                yield listed

    def find(self, key: str) -> SourceObject:
        """The file in the commit at which the revision is now."""
        commit = self._commit()
        entry = self._info(commit, self._path(key, commit))
        with self._hub.parsing():
            if entry and entry["type"] == "file":
                return _object(key, entry, commit)
        raise ObjectVanished("The repository no longer has the file", source=self.url, object=key)

    def request(self, listed: SourceObject, start: int, end: int) -> Request | None:
        """One GET at the commit in which the file was listed. The hub redirects it to its content network."""
        if self._folder is None or not listed.state:
            return None  # `read_into` fetches what is missing, which this method may not: it must not block
        return self._hub.object_request(self._address(listed), listed, start, end)

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        """The same, after the commit and the folder that the URL names are known."""
        listed = replace(listed, state=listed.state or self._commit())
        self._path(listed.key, listed.state)
        super().read_into(listed, start, buffer)

    def refusal(self, response: Response, key: str) -> SourceError:
        """The error for a response of 300 or above."""
        return self._hub.refusal(response, key)

    def _address(self, listed: SourceObject) -> str:
        """The address of a file at the commit in which it was listed."""
        key = quote(self._path(listed.key, listed.state))
        return f"{self._hub.endpoint}{self._repo.files}/resolve/{listed.state}/{key}"

    def _commit(self) -> str:
        """The commit at which the revision is now."""
        revision = self._hub.fetch_json(f"{self._repo.api}/revision/{quote(self._repo.revision, safe='')}")
        with self._hub.parsing():
            return str(revision["sha"])

    def _path(self, key: str, commit: str) -> str:
        """A key's path in the repository."""
        if self._folder is None:
            self._single_file(commit)
        return f"{self._folder}{key}"

    def _single_file(self, commit: str) -> dict[str, Any] | None:
        """The file that the URL names; None when it names a folder."""
        path = self._repo.path
        entry = self._info(commit, path) if path and not path.endswith("/") else None
        with self._hub.parsing():
            single = entry is not None and entry["type"] == "file"
        self._folder = path[: path.rfind("/") + 1] if single or not path else path.rstrip("/") + "/"
        return entry if single else None

    def _info(self, commit: str, path: str) -> dict[str, Any] | None:
        entries = self._hub.fetch_json(f"{self._repo.api}/paths-info/{commit}", {"paths": [path], "expand": False})
        with self._hub.parsing():
            return next(iter(entries), None)


def _object(key: str, item: Mapping[str, Any], commit: str) -> SourceObject:
    if sha256 := (item.get("lfs") or {}).get("oid", ""):
        pin, checksums = Pin("sha256", sha256, "strong"), (("sha256", sha256),)
        return SourceObject(key, int(item["size"]), pin, None, checksums, state=commit)
    oid = str(item["oid"])
    return SourceObject(key, int(item["size"]), Pin("blob", oid, "strong"), None, (("git", oid),), state=commit)
