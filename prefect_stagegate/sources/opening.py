"""Opens the source that a URL names, by its definition."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect_stagegate import doors
from prefect_stagegate.doors import Kind, flat, load, source_of, unknown_option
from prefect_stagegate.errors import MissingExtra, UsageError, install_hint
from prefect_stagegate.sources.adapter import Source, public_url
from prefect_stagegate.sources.terms import IDLE_SECONDS, Options, Recall, Terms, nothing
from prefect_stagegate.sources.walk import ENTRIES

if TYPE_CHECKING:
    from prefect_stagegate.transport.http import Allowed

_SERVERS = re.compile(
    r"\b(?:ftp|https?|oci|postgres(?:ql)?|sftp|smb|ssh|webdavs?|(?:web)?hdfs)://[^/?#]*", re.IGNORECASE
)
"""URLs that name a host, by their schemes. Others name a bucket or a folder."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What another process opens a source by; see `open_source`."""

    url: str
    options: Options
    credentials: Callable[[], Options]
    idle: float
    allowed: tuple[str, ...]
    most: int

    @property
    def is_enough(self) -> bool:
        """Whether a source that another process opens by it reads the objects that this one lists."""
        definition = source_of(self.url)
        return definition is not None and definition.is_stateless

    def open(self, scratch: str | None = None, recall: Recall = nothing) -> Source:
        """Open the source; see `open_source`."""
        return open_source(
            self.url,
            self.options,
            credentials=self.credentials,
            idle=self.idle,
            allowed=self.allowed,
            scratch=scratch,
            recall=recall,
            most=self.most,
        )


def open_source(
    url: str,
    options: Options | None = None,
    *,
    credentials: Options | Callable[[], Options] | None = None,
    idle: float = IDLE_SECONDS,
    allowed: Allowed = (),
    scratch: str | None = None,
    recall: Recall = nothing,
    most: int = ENTRIES,
) -> Source:
    """Open the source at `url`. Sends no request yet.

    Args:
        url: A URL, or a path of this machine.
        options: Storage options by fsspec's names.
        credentials: Further options, from a block or a secret store; they override `options`. A function is called
            again when they expire.
        idle: Seconds without a byte after which a read is given up.
        allowed: Hosts that may be asked even at addresses that no source may have.
        scratch: Folder for temporary copies of objects that an adapter must render before they are read; None for the
            system's folder of temporary files.
        recall: Looks up the sizes of objects that were rendered before.
        most: Most files and folders that one listing looks at, where the source has folders.

    Raises:
        UsageError: The scheme, the URL, an option or the server's address can't be used or is not permitted.
        AccessDenied: There are no credentials.
        AdapterFailed: The adapter, or a library that it uses, is defective.
    """
    definition, terms = source_of(url), Terms(idle, allowed, scratch, recall, most)
    if definition and definition.is_local:
        given = _given(options, credentials)
        _require_permitted(definition, url, given, allowed)
        return _opened(definition, url, given, terms)
    # Late, as all that asks servers: a staging of local files needs none of it.
    from prefect_stagegate.redaction import remember_access
    from prefect_stagegate.sources.wrappers.boundary import bounded
    from prefect_stagegate.transport.http import require_allowed

    def opened() -> Source:
        given = _given(options, credentials)
        # Secrets must be known to the redaction before anything can fail and quote them.
        remember_access(url, {**os.environ, **given})
        # Addresses are checked here, before an adapter of any package can connect to one.
        for place in _SERVERS.findall(url):
            require_allowed(place, allowed)
        # A plugin's scheme may name a server, too, so an address is checked behind any.
        require_allowed(url, allowed, resolve=False)
        family = definition or _fsspec(url)
        _require_permitted(family, url, given, allowed)
        source = _opened(family, url, given, terms)
        # The environment may name the endpoint, so it is known only now. Nothing was sent yet.
        if endpoint := getattr(source, "endpoint", ""):
            require_allowed(endpoint, allowed)
        return source

    return bounded(url, opened, renews=callable(credentials))


def _given(options: Options | None, credentials: Options | Callable[[], Options] | None) -> dict[str, Any]:
    return {**(options or {}), **((credentials() if callable(credentials) else credentials) or {})}


def _fsspec(url: str) -> doors.Source:
    from prefect_stagegate.sources.fsspec import FSSPEC
    from prefect_stagegate.sources.fsspec.fsspec_source import require_readable

    require_readable(url)
    return FSSPEC


def _opened(definition: doors.Source, url: str, given: Options, terms: Terms) -> Source:
    try:
        opener = load(definition.opener) if isinstance(definition.opener, str) else definition.opener
        source: Source = opener(url, given, terms)
    except ImportError as error:
        if not definition.extra:
            raise
        message = f"The client library for {public_url(url)} is not installed"
        raise MissingExtra(message, hint=install_hint(definition.extra), source=public_url(url)) from error
    return source


def _require_permitted(permitted: doors.Source, url: str, options: Mapping[str, Any], allowed: Allowed) -> None:
    """Refuse an option that is not permitted, a forbidden address, and a device or pipe in place of a file.

    Raises:
        UsageError: An option can't be used.
    """
    for path, value in flat(options):
        if value is None:
            continue
        kind = permitted.kind(name := ".".join(path))
        if kind is None:
            raise unknown_option(permitted, name, source=public_url(url))
        for item in value if isinstance(value, list | tuple) else (value,):
            if kind is Kind.ADDRESS:
                from prefect_stagegate.transport.http import require_allowed

                require_allowed(str(item), allowed)
            elif kind is Kind.FILE and isinstance(item, str):
                # A device or pipe may be endless. The library itself reports an absent file.
                file = Path(item).expanduser()
                if file.exists() and not file.is_file():
                    message = f"The option {name} names {item}, which is no plain file"
                    raise UsageError(message, hint="Name a file.", source=public_url(url))
