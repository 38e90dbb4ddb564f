"""Concurrency limits: the number of simultaneous transfers to a node or from a source, over all runs of a server.

    stagegate-node-<node>                 the node's name: STAGEGATE_NODE, else the host's
    stagegate-source-<scheme>-<where>     the bucket or host of the source's URL, or the folder of a local one

These are global concurrency limits of Prefect. `stagegate limits` sets them, and transfers take their `slots`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import sha256

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.exceptions import PrefectException

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.sources import public_url
from prefect_stagegate.spec.location import local_path

LONGEST = 80
"""Characters of a name after `stagegate-`. The end of a longer name is replaced by a digest of the whole name."""
PAGE = 100
"""Limits that one request to the API returns."""


def node_limit(node: str) -> str:
    """The name of a node's limit.

    >>> node_limit("GPU-1.example.org")
    'stagegate-node-gpu-1.example.org'
    """
    return _name("node", node)


def source_limit(url: str) -> str:
    """The name of a source's limit. It depends on the URL only, so no credentials are needed.

    >>> source_limit("s3://lake/flights/"), source_limit("https://me:secret@data.example.org:8443/flights/?sig=1")
    ('stagegate-source-s3-lake', 'stagegate-source-https-data.example.org-8443')
    >>> source_limit("/mnt/nas/flights/"), source_limit("simplecache::gs://lake/flights/")
    ('stagegate-source-file-mnt-nas-flights', 'stagegate-source-gs-lake')
    """
    # The last link of a chained URL is where the bytes come from.
    origin = url.rpartition("::")[2]
    path = local_path(origin)
    if path is not None:
        return _name("source", "file", path)
    scheme, _, rest = public_url(origin).partition("://")
    return _name("source", scheme, rest.partition("/")[0] or rest)


def _name(*words: str) -> str:
    name = re.sub(r"[^a-z0-9._]+", "-", "-".join(words).lower()).strip("-")
    if len(name) > LONGEST:
        # A dash and eight digits of the digest take the last nine characters.
        name = f"{name[: LONGEST - 9]}-{sha256(name.encode()).hexdigest()[:8]}"
    return f"stagegate-{name}"


@dataclass(frozen=True, slots=True)
class LimitChange:
    """The effect of setting one limit."""

    name: str
    limit: int
    """Slots; 0 closes the node or source."""
    before: int | None
    """Slots that it had; None when there was no such limit."""
    active: bool
    """Whether it is in force. Limits can be disabled in Prefect, and setting one does not enable it."""


def set_limits(wanted: Mapping[str, int], *, dry_run: bool = False) -> tuple[LimitChange, ...]:
    """Create limits that the Prefect server lacks, and change those with another number of slots.

    Args:
        wanted: The number of slots by the limit's name, which `node_limit` and `source_limit` return.
        dry_run: Only return what would be done.

    Raises:
        StagegateError: Prefect's API does not answer, or refuses.
    """
    try:
        with get_client(sync_client=True) as client:
            existing = read_limits(client, wanted.keys())
            changes = tuple(_change(name, limit, existing.get(name)) for name, limit in wanted.items())
            for change in changes:
                if change.before != change.limit and not dry_run:
                    client.upsert_global_concurrency_limit_by_name(change.name, change.limit)
            return changes
    except (httpx.HTTPError, PrefectException, ValueError) as error:
        raise StagegateError(
            f"Concurrency limits can't be read or set by Prefect's API: {reason_of(error)}",
            hint="`prefect version` shows which API is used; PREFECT_API_URL names another.",
        ) from error


def _change(name: str, limit: int, old: GlobalConcurrencyLimitResponse | None) -> LimitChange:
    return LimitChange(name, limit, old.limit, old.active) if old else LimitChange(name, limit, None, active=True)


def reason_of(error: Exception) -> str:
    """The first line of an error; Prefect's clients add a link about HTTP's codes in the next line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def read_limits(client: SyncPrefectClient, names: Collection[str]) -> dict[str, GlobalConcurrencyLimitResponse]:
    """The existing limits of these names, by name; one request for each `PAGE` limits on the server."""
    limits: dict[str, GlobalConcurrencyLimitResponse] = {}
    read = 0
    while True:
        page = client.read_global_concurrency_limits(limit=PAGE, offset=read)
        limits |= {limit.name: limit for limit in page if limit.name in names}
        read += len(page)
        # Names are unique, so nothing more can come once all of them were found.
        if len(page) < PAGE or len(limits) == len(names):
            return limits
