"""Slots of concurrency limits: a transfer holds one for its node and one for each of its sources.

    stagegate-node-<node>                 the node's name: STAGEGATE_NODE, else the host's
    stagegate-source-<scheme>-<where>     the bucket or host of the source's URL, or the folder of a local one

These are Prefect's global concurrency limits, which hold over all runs of a server. `stagegate limits` sets them.

A transfer takes all of its slots at once before it lists anything, and releases them after its version is published. It
never holds one slot while it waits for another, so no two transfers wait for each other.

Limits that don't exist, disabled limits and an API that doesn't answer never stop a transfer, since needed data matter
more than limits. A limit of 0 closes its node or source until somebody raises it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from threading import Event

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import PrefectException

from prefect_stagegate.errors import Cancelled, StagegateError
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.sources import public_url
from prefect_stagegate.spec import Spec
from prefect_stagegate.spec.urls import local_path
from prefect_stagegate.tasks._support.notify import in_a_run, run_log

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
            changes = tuple(
                LimitChange(name, limit, existing[name].limit, existing[name].active)
                if name in existing
                else LimitChange(name, limit, None, active=True)
                for name, limit in wanted.items()
            )
            for change in changes:
                if change.before != change.limit and not dry_run:
                    client.upsert_global_concurrency_limit_by_name(change.name, change.limit)
            return changes
    except (httpx.HTTPError, PrefectException, ValueError) as error:
        raise StagegateError(
            f"Concurrency limits can't be read or set by Prefect's API: {reason_of(error)}",
            hint="`prefect version` shows which API is used; PREFECT_API_URL names another.",
        ) from error


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


PAUSE = (2.0, 15.0)
"""The shortest and longest time between two looks for a free slot, in seconds; the server says when to look again."""
NO_SLOT = (httpx.codes.LOCKED, httpx.codes.UNPROCESSABLE_ENTITY)
"""The server's status codes for a limit without free slots, and for a limit of 0."""
API_ERRORS = (httpx.HTTPError, PrefectException, ConcurrencySlotAcquisitionError)


@contextmanager
def admit(spec: Spec, cancel: Event | None = None) -> Iterator[None]:
    """Hold slots of this node and of a spec's sources during the block. Outside of a run, do nothing.

    Args:
        spec: The spec. Mirrors of its sources don't count, since nobody knows beforehand whether they are read.
        cancel: Set it to stop waiting.

    Raises:
        StagegateError: No slot became free within STAGEGATE_SLOT_WAIT.
        Cancelled: `cancel` was set.
    """
    with ExitStack() as slots:
        if in_a_run():
            settings = Settings.from_environment(os.environ)
            names = {node_limit(settings.node), *(source_limit(source.url) for source in spec.sources)}
            try:
                # All at once: two transfers that each held one slot could wait for each other's.
                _take(slots, _existing(names), settings.slot_wait, cancel or Event())
            except API_ERRORS as error:
                run_log().warning("Concurrency limits are ignored: %s", reason_of(error))
        yield


def _existing(names: Collection[str]) -> list[str]:
    """The limits that exist, sorted. Prefect would log a warning about each of the others."""
    with get_client(sync_client=True) as client:
        return sorted(read_limits(client, names))


def _take(slots: ExitStack, names: Sequence[str], wait: float, cancel: Event) -> None:
    """Take a slot of each limit at once, trying again until all of them have a free one."""
    limits, begun, has_waited = " and ".join(names), time.monotonic(), False
    while (pause := _try(slots, names)) is not None:
        left = begun + wait - time.monotonic()
        if left <= 0:
            raise StagegateError(
                f"No slot of {limits} became free in {wait:.0f} s",
                hint="`prefect global-concurrency-limit inspect NAME` shows a limit, `stagegate limits` raises it, and "
                "STAGEGATE_SLOT_WAIT says how long to wait.",
            )
        if not has_waited:
            run_log().info("Waiting for a free slot of %s, %.0f s at most", limits, wait)
            has_waited = True
        if cancel.wait(min(pause, left)):
            raise Cancelled(f"Stopped waiting for a free slot of {limits}")
    if has_waited:
        run_log().info("Got a slot of %s after %.0f s", limits, time.monotonic() - begun)


def _try(slots: ExitStack, names: Sequence[str]) -> float | None:
    """Take the slots at once, or return the seconds after which to try again."""
    if not names:
        return None
    # A lease that can't be renewed ends no transfer: needed data matter more than limits.
    held = concurrency(list(names), max_retries=0, raise_on_lease_renewal_failure=False)
    try:
        # By hand, because leaving may fail, and its error must not hide what the block raised.
        held.__enter__()
    except ConcurrencySlotAcquisitionError as error:
        response = getattr(error.__cause__, "response", None)
        if response is None or response.status_code not in NO_SLOT:
            raise
        low, high = PAUSE
        return min(max(low, float(response.headers.get("Retry-After", high))), high)
    slots.callback(_give_back, held)
    return None


def _give_back(held: AbstractContextManager[None]) -> None:
    """Release the slots. An error is logged only: the server releases them when their lease ends."""
    try:
        held.__exit__(None, None, None)
    except API_ERRORS as error:
        run_log().warning("Slots of concurrency limits are released some minutes late: %s", reason_of(error))
