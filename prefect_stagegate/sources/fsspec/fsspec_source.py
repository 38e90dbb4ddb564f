"""Sources that fsspec reads: FTP, memory, S3 with options that only s3fs knows, and file systems of other packages.

fsspec pins no read. So this adapter compares the bytes that came with the listed size, and looks the object's pin up
again after its last byte.
"""

from __future__ import annotations

import email.utils
import ftplib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any, Literal

import fsspec
from fsspec.registry import known_implementations, registry

from prefect_stagegate.doors import scheme_of, sources, unloaded
from prefect_stagegate.errors import (
    AccessDenied,
    CredentialsExpired,
    MissingExtra,
    ObjectVanished,
    SourceError,
    SourceUnavailable,
    UsageError,
    nearest,
)
from prefect_stagegate.model import CredentialLife, Pin, SourceObject
from prefect_stagegate.redaction.option_secrets import secrets_of
from prefect_stagegate.sources.adapter import (
    BaseSource,
    Wanted,
    everything,
    public_url,
    require_length,
    require_unchanged,
    server_busy,
)
from prefect_stagegate.sources.fsspec import FSSPEC, FTP, MEMORY
from prefect_stagegate.sources.selection.globs import enters
from prefect_stagegate.sources.terms import DEFAULT_TERMS, Terms
from prefect_stagegate.sources.walk import Walk
from prefect_stagegate.sources.wrappers.boundary import adapter_failed
from prefect_stagegate.spec.parsed_document import ABSENT_CREDENTIALS
from prefect_stagegate.transport.expiry import ends_at

BY_FSSPEC = sorted(("s3", "s3a", *FTP.schemes, *MEMORY.schemes, *FSSPEC.schemes))
"""The schemes that fsspec may read: their file systems ask a server, write no file and wrap no other file system."""
PINS: tuple[tuple[str, str, Literal["strong", "weak"]], ...] = (
    ("VersionId", "version", "strong"),
    ("version_id", "version", "strong"),
    ("generation", "generation", "strong"),
    ("ETag", "etag", "strong"),
    ("etag", "etag", "strong"),
    ("mtime", "mtime", "weak"),
    ("modified", "mtime", "weak"),
    ("LastModified", "mtime", "weak"),
    ("last_modified", "mtime", "weak"),
    ("Last-Modified", "mtime", "weak"),
    ("modify", "mtime", "weak"),
    ("created", "mtime", "weak"),
)
"""The fields of fsspec's `info` that can pin an object, the best first: field, kind and strength."""

_FORBIDDEN = (401, 403)
_GONE = (404, 410)
_BUSY = (429, 503)
_SERVER_FAILED = 500
_FTP = {"421": 503, "530": 403, "532": 403, "550": 404}


def require_readable(url: str) -> None:
    """Refuse a URL that fsspec may not read: it reads the schemes of `BY_FSSPEC`, and those of an installed package.

    fsspec's other file systems wrap file systems that options name, keep copies where options say, or read local
    folders.

    Raises:
        UsageError: The file system is refused or unknown, or the URL chains file systems.
    """
    scheme = scheme_of(url)
    if "::" in url:
        hint = "Use the URL of the place itself; unpack archives first."
        raise UsageError("The URL chains file systems, which may write files", hint=hint, source=public_url(url))
    known = scheme in known_implementations
    if scheme in BY_FSSPEC or entry_points(group="fsspec.specs", name=scheme) or (scheme in registry and not known):
        return
    if known:
        hint = f"Permitted file systems of fsspec: {', '.join(BY_FSSPEC)}."
        raise UsageError(f"A source may not be read by fsspec's {scheme}://", hint=hint, source=public_url(url))
    broken = [f"The plugin {place} can't be loaded: {why}." for place, why in unloaded.items()]
    near = nearest(scheme, [*sources(), *BY_FSSPEC])
    check = f"Did you mean {near}://? Else install" if near else "Check the URL, or install"
    hint = " ".join([f"{check} the package that reads it.", *broken])
    raise UsageError(f"No installed package reads {scheme}://", hint=hint, source=public_url(url))


class FsspecSource(BaseSource):
    """A folder or one object that an fsspec file system reads.

    Of the terms only the bound on entries has an effect: fsspec's file systems have time-outs of their own.

    Raises:
        UsageError: fsspec may not read the URL, or the file system refuses an option.
        MissingExtra: The package that reads it is absent.
    """

    def __init__(self, url: str, options: Mapping[str, Any], terms: Terms = DEFAULT_TERMS) -> None:
        require_readable(url)
        self.url = public_url(url)
        self._most = terms.most
        # No caches: each listing must be current, and instances must not share another source's credentials.
        try:
            system, self._root = fsspec.url_to_fs(url, **options, use_listings_cache=False, skip_instance_cache=True)
        except ImportError as error:
            message = f"The client library for {self.url} is not installed"
            raise MissingExtra(message, hint=f"Install it: {error}") from error
        except (ValueError, TypeError) as error:
            hint = "Check the options: fsspec gets them as they are."
            raise UsageError(f"{self.url} can't be opened: {error}", hint=hint) from error
        except Exception as error:
            raise self._explained(error, "") from error
        # Only asynchronous file systems of fsspec may be called by many threads at once.
        self._fs = system if system.async_impl else SerializedFileSystem(system)
        # Two servers may have a bucket or folder of one name.
        server = next(filter(None, map(options.get, ("endpoint_url", "host", "endpoint", "base_url"))), "")
        self.identity = f"{server} {self.url}".strip()
        self._is_folder = url.endswith("/")
        self._life = _life(secrets_of(url, options), options, open_to_all=url.startswith("memory:"))

    def credential_life(self) -> CredentialLife:
        """What the options tell. fsspec's file systems don't say which credentials they found elsewhere."""
        return self._life

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted object, folder by folder."""
        try:
            if not self._single:
                yield from self._walk(wanted)
            elif wanted(self._single):
                yield self.find(self._single)
        except SourceError:
            raise
        except FileNotFoundError as error:
            raise SourceError("There is nothing at this address", hint="Check the URL.", source=self.url) from error
        except Exception as error:
            raise self._explained(error, "") from error

    def _walk(self, wanted: Wanted) -> Iterator[SourceObject]:
        """Folder by folder: fsspec's own walk recurses, so that deep trees would overflow its stack."""
        paths, walk = [self._root], Walk(self.url, self._most)
        while paths:
            path = paths.pop()
            above = f"{self._key(path)}/".removeprefix("/")
            walk.enter(above)
            for _, folders, files in self._fs.walk(path, maxdepth=1, detail=True, on_error="raise"):
                for name, info in files.items():
                    if name and wanted(key := walk.key(above, name)):  # without a name it is the folder itself
                        yield self._object(key, info)
                # Reversed, because the stack is taken from its end: folders come in the order of the listing.
                keys = {walk.key(above, name): info["name"] for name, info in folders.items()}
                paths += [self._inside(keys[key], key) for key in reversed(keys) if enters(wanted, key + "/")]

    def _inside(self, path: str, key: str) -> str:
        """The path that a listing names for a folder, if it belongs to the folder's key."""
        if self._key(path.rstrip("/")) != key:
            message = f"The listing names {path!r}, which lies outside of the listed folder"
            raise SourceError(message, source=self.url, object=key)
        return path.rstrip("/")

    def find(self, key: str) -> SourceObject:
        """The object as it is now."""
        try:
            return self._object(key, self._fs.info(self._name(key)))
        except SourceError:
            raise
        except Exception as error:
            raise self._explained(error, key) from error

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        """Read the bytes in one piece, by a range only where less than the whole object is wanted."""
        whole = start == 0 and len(buffer) == listed.size
        bounds = {} if whole else {"start": start, "end": start + len(buffer)}
        try:
            data = memoryview(self._fs.cat_file(self._name(listed.key), **bounds)).cast("B")
        except Exception as error:
            raise self._explained(error, listed.key) from error
        if len(data) != len(buffer):
            self.confirm(listed)  # an object that has changed says more than a wrong length
        require_length(len(data), len(buffer), self, listed.key)
        buffer[:] = data

    def confirm(self, listed: SourceObject) -> None:
        """Look up the object's pin again."""
        require_unchanged(self, listed)

    @cached_property
    def _single(self) -> str:
        """The name of the file that the URL names; empty when it names a folder."""
        is_file = not self._is_folder and self._fs.info(self._root).get("type") == "file"
        return str(self._root).rstrip("/").rpartition("/")[2] if is_file else ""

    def _key(self, name: str) -> str:
        return name.removeprefix(self._root.rstrip("/")).lstrip("/")

    def _name(self, key: str) -> str:
        return self._root if self._single else f"{self._root.rstrip('/')}/{key}"

    def _object(self, key: str, info: dict[str, Any]) -> SourceObject:
        if info.get("size") is None:  # an HTML index page lists only names
            info = self._fs.info(self._name(key))
        if info.get("size") is None:
            raise SourceError(f"The server doesn't tell the size of {key!r}", source=self.url, object=key)
        return SourceObject(key, int(info["size"]), self._pin(info), _modified(info) or _ftp_time(info.get("modify")))

    def _pin(self, info: Mapping[str, Any]) -> Pin:
        for field, kind, strength in PINS:
            if (value := info.get(field)) is not None:
                # One file system may give the same time in several forms: compare them as seconds.
                seconds = _modified(info) if kind == "mtime" else None
                text = str(value).strip('"') if seconds is None else repr(seconds)
                return Pin(kind, text, "weak" if text.startswith("W/") else strength)
        return Pin("size", str(info["size"]), "weak")

    def _explained(self, error: Exception, key: str) -> SourceError:
        """The typed error for a file system's exception: by its class, or by the HTTP status that it carries."""
        status = getattr(error, "status", 0) or _ftp_status(error)
        subject = {"source": self.url, "object": key}
        text = str(error)
        if isinstance(error, FileNotFoundError) or status in _GONE:
            return ObjectVanished("The object is gone", **subject)
        if isinstance(error, PermissionError) or status in _FORBIDDEN:
            if "expired" in text:
                return CredentialsExpired("The credentials have expired", hint="Log in again.", **subject)
            return AccessDenied("Access is denied", hint="Check the credentials in the source's options.", **subject)
        if type(error).__name__ in ABSENT_CREDENTIALS:
            hint = "Set them in the source's options, or where the file system looks for them."
            return AccessDenied(f"There are no credentials: {text}", hint=hint, **subject)
        if status in _BUSY or "SlowDown" in text:
            return server_busy(getattr(error, "headers", None) or {}, source=self.url, key=key)
        return self._failed(error, text, status, subject)

    def _failed(self, error: Exception, text: str, status: int, subject: dict[str, str]) -> SourceError:
        if isinstance(error, OSError) or _is_connection(error) or status >= _SERVER_FAILED:
            return SourceUnavailable(f"The source failed: {text or type(error).__name__}", **subject)
        if status:
            return SourceError(f"The source failed: {type(error).__name__}: {text}", **subject)
        # Neither HTTP nor the system failed, so the file system has a defect. `_fs` is absent while it is being opened.
        system = type(getattr(self, "_fs", self))
        return adapter_failed(error, f"{system.__module__}.{system.__qualname__}", **subject)


class SerializedFileSystem:
    """A file system that one thread at a time may use, behind a lock: FTP's one connection would mix responses.

    Has only the methods that `FsspecSource` calls.
    """

    def __init__(self, system: Any) -> None:
        self._system = system
        self._lock = threading.Lock()

    def info(self, path: str) -> Any:
        """The file system's entry for a path."""
        with self._lock:
            return self._system.info(path)

    def cat_file(self, path: str, **bounds: int) -> Any:
        """The bytes of a file, or of a range of it."""
        with self._lock:
            return self._system.cat_file(path, **bounds)

    def walk(self, path: str, **kwargs: Any) -> Iterator[Any]:
        """Folder by folder. The lock is free between two folders."""
        folders = iter(self._system.walk(path, **kwargs))
        while True:
            with self._lock:
                folder = next(folders, None)
            if folder is None:
                return
            yield folder


def _ftp_status(error: Exception) -> int:
    """The HTTP status that corresponds to an FTP reply (RFC 959); 0 for other exceptions."""
    if not isinstance(error, ftplib.Error):
        return 0
    return _FTP.get(str(error)[:3], _SERVER_FAILED if isinstance(error, ftplib.error_temp) else 0)


def _is_connection(error: Exception) -> bool:
    """Whether a client library's exception, recognised by its name, means that the connection failed."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"ClientConnectionError", "ClientPayloadError", "ConnectionError", "HTTPClientError"})


def _modified(info: Mapping[str, Any]) -> float | None:
    """The time of the object's last change in seconds since the epoch, from whatever form the file system gives."""
    value = next((info[field] for field, kind, _ in PINS if kind == "mtime" and info.get(field) is not None), None)
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return float(value) if isinstance(value, int | float) else None


def _ftp_time(text: object) -> float | None:
    """A time as FTP's MLSD writes it (RFC 3659), in whole seconds. Pins keep its text, as those of earlier releases."""
    with suppress(ValueError):
        return datetime.strptime(f"{text}+0000", "%Y%m%d%H%M%S%z").timestamp() if text else None
    return None


def _parsed(text: str) -> datetime | None:
    """A time as HTTP's headers or ISO 8601 write it."""
    for parse in (email.utils.parsedate_to_datetime, datetime.fromisoformat):
        with suppress(ValueError):
            return parse(text)
    return None


def _life(secrets: Sequence[str], options: Mapping[str, Any], *, open_to_all: bool) -> CredentialLife:
    """How long the credentials in the URL and the options last."""
    if ends := [moment for secret in secrets if (moment := ends_at(secret))]:
        return CredentialLife("temporary", "a token", min(ends))
    if options.get("anon") or options.get("token") == "anon" or (open_to_all and not secrets):
        return CredentialLife("none", "anonymous reading")
    if secrets and not any("token" in name or "sas" in name for name in options):
        return CredentialLife("static", "a password or key")
    return CredentialLife("unknown", "credentials that fsspec's file system finds by itself")
