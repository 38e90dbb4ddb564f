"""The Hugging Face hub: the files of a dataset's, model's or space's repository at one commit.

The revision becomes a commit once for each listing, and every read names that commit, so what was listed stays readable
while others push. A file's pin is its content's own digest: SHA-256 where the file is large (LFS, Xet), else git's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote

from prefect_stagegate.errors import ObjectVanished, SourceError, UsageError
from prefect_stagegate.http import Request, Response
from prefect_stagegate.model import CredentialLife, Pin, SourceObject
from prefect_stagegate.sources.base import Wanted, everything
from prefect_stagegate.sources.http_source import HttpReads
from prefect_stagegate.sources.terms import Terms
from prefect_stagegate.sources.web.hub_client import Hub

_URL = re.compile(
    r"hf://(?:(?P<kind>datasets|models|spaces)/)?(?P<repo>[^/@]+/[^/@]+)"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(?P<path>.*))?"
)


@dataclass(frozen=True, slots=True)
class Repository:
    """What a URL names."""

    kind: str
    """`datasets`, `models` or `spaces`."""
    name: str
    revision: str
    """A branch, a tag or a commit."""
    path: str
    """The folder or file in it; empty for all of it."""

    @classmethod
    def parse(cls, url: str) -> Repository:
        """Read `hf://datasets/owner/name@revision/path`; without `datasets/` it is a model.

        >>> Repository.parse("hf://datasets/squad-org/squad@refs/convert/parquet/plain/")
        Repository(kind='datasets', name='squad-org/squad', revision='refs/convert/parquet', path='plain/')

        Raises:
            UsageError: It names no repository.
        """
        found = _URL.fullmatch(url)
        if not found:
            raise UsageError(f"{url} names no repository", hint="It looks like hf://datasets/owner/name@revision/path.")
        revision = unquote(found["revision"] or "main")
        return cls(found["kind"] or "models", found["repo"], revision, found["path"] or "")

    @property
    def api(self) -> str:
        """The beginning of the addresses that tell about it."""
        return f"/api/{self.kind}/{self.name}"

    @property
    def files(self) -> str:
        """The beginning of the addresses of its files."""
        return f"/{self.name}" if self.kind == "models" else f"/{self.kind}/{self.name}"


class HubSource(HttpReads):
    """A repository of the hub, a folder of it (with or without the slash at its end) or one file.

    Args:
        url: `hf://datasets/owner/name@revision/path`, `hf://owner/name` for a model.
        options: `token` (False for none) and `endpoint`; else HF_TOKEN, the hub's own file and HF_ENDPOINT are asked.
        terms: How servers are asked.

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
        """The hub's tokens have no end that they tell."""
        if self._hub.anonymous:
            return CredentialLife("none", "anonymous reading")
        return CredentialLife("static", "a token of the hub")

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted file of the commit that the revision names now, a page at a time."""
        commit, path = self._commit(), self._repo.path.rstrip("/")
        single = self._named_file(commit)
        if single:
            key = path.rpartition("/")[2]
            if wanted(key):
                yield _object(key, single, commit)
            return
        folder = f"/{quote(path)}" if path else ""
        for item in self._hub.pages(f"{self._repo.api}/tree/{commit}{folder}?recursive=true"):
            with self._hub.understood():
                key = str(item["path"]).removeprefix(f"{path}/" if path else "")
                listed = _object(key, item, commit) if item["type"] == "file" else None
            if listed and wanted(key):
                yield listed

    def find(self, key: str) -> SourceObject:
        """The file as the commit has it that the revision names now."""
        commit = self._commit()
        found = self._info(commit, self._path(key, commit))
        with self._hub.understood():
            if found and found["type"] == "file":
                return _object(key, found, commit)
        raise ObjectVanished("The repository no longer has the file", source=self.url, object=key)

    def request(self, listed: SourceObject, start: int, end: int) -> Request | None:
        """One GET at the commit in which the file was listed; it leads to the hub's content network."""
        if self._folder is None or not listed.state:
            return None  # they are asked for first
        return self._hub.object_request(self._address(listed), listed, start, end)

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        """The same, once the hub has told the commit and the folder that the URL names."""
        listed = replace(listed, state=listed.state or self._commit())
        self._path(listed.key, listed.state)
        super().read_into(listed, start, buffer)

    def refusal(self, response: Response, key: str) -> SourceError:
        """What the hub's refusal means."""
        return self._hub.refusal(response, key)

    def _address(self, listed: SourceObject) -> str:
        """Where a file is read, at the commit in which it was listed."""
        key = quote(self._path(listed.key, listed.state))
        return f"{self._hub.endpoint}{self._repo.files}/resolve/{listed.state}/{key}"

    def _commit(self) -> str:
        """The commit that the revision names now."""
        told = self._hub.tell(f"{self._repo.api}/revision/{quote(self._repo.revision, safe='')}")
        with self._hub.understood():
            return str(told["sha"])

    def _path(self, key: str, commit: str) -> str:
        """Where a key stands in the repository."""
        if self._folder is None:
            self._named_file(commit)
        return f"{self._folder}{key}"

    def _named_file(self, commit: str) -> dict[str, Any] | None:
        """The file that the URL names; None when it names a folder."""
        path = self._repo.path
        found = self._info(commit, path) if path and not path.endswith("/") else None
        with self._hub.understood():
            single = found is not None and found["type"] == "file"
        self._folder = path[: path.rfind("/") + 1] if single or not path else path.rstrip("/") + "/"
        return found if single else None

    def _info(self, commit: str, path: str) -> dict[str, Any] | None:
        found = self._hub.tell(f"{self._repo.api}/paths-info/{commit}", {"paths": [path], "expand": False})
        with self._hub.understood():
            return next(iter(found), None)


def _object(key: str, item: Mapping[str, Any], commit: str) -> SourceObject:
    if sha256 := (item.get("lfs") or {}).get("oid", ""):
        pin, checksums = Pin("sha256", sha256, "strong"), (("sha256", sha256),)
        return SourceObject(key, int(item["size"]), pin, None, checksums, state=commit)
    oid = str(item["oid"])
    return SourceObject(key, int(item["size"]), Pin("blob", oid, "strong"), None, (("git", oid),), state=commit)
