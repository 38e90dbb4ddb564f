"""The node's agent: keeps this node's copies of versions current, and its record in the catalog young."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from prefect_stagegate.doors import hidden_names, load, plugins
from prefect_stagegate.errors import Cancelled, StagegateError
from prefect_stagegate.jobs.address import resolve_for_node
from prefect_stagegate.jobs.runner import copied_digest
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import LATEST, Address
from prefect_stagegate.plugins.fleet.nodes import NodeRecord, record_timeout
from prefect_stagegate.plugins.fleet.own_record import publish_record
from prefect_stagegate.redaction import redact
from prefect_stagegate.units import bytes_text
from prefect_stagegate.workspace import Workspace

HEARTBEATS = 3
"""Records that the agent writes in the time after which one counts as unknown."""

LOOK_SECONDS = 0.5
"""Seconds from a change on the node to the record about it, at most."""

Report = Callable[[str], None]
"""Takes a line for the log: what changed, or what failed."""
Published = Callable[[NodeRecord], None]
"""Takes each record that was written. What it raises as a `StagegateError` is reported, and ends nothing."""


def run_agent(
    workspace: Workspace,
    addresses: Iterable[Address] = (),
    *,
    report: Report,
    published: Published = lambda _: None,
    cancel: threading.Event,
    once: bool = False,
) -> bool:
    """Fetch what the node should hold, and write the node's record, until `cancel` is set.

    The record is written also while a fetch goes on, and at once when one ended. An address that can't be fetched keeps
    no other from being.

    Args:
        workspace: Cache and catalog.
        addresses: Refs that this node keeps current; without any, the targets' refs that it has copies of.
        report: Takes lines for the log.
        published: Takes each record after it was written.
        cancel: Set it to end soon.
        once: Whether to end after one round.

    Returns:
        Whether the last round fetched what it should, and wrote the record.
    """
    pause = record_timeout(workspace.settings) / HEARTBEATS
    wanted = tuple(addresses)
    if once:
        fetched = reconcile(workspace, wanted, report, cancel)
        return _publish(workspace, report, published) and fetched
    changed = threading.Event()

    def report_change(line: str) -> None:
        report(line)
        changed.set()

    with _reconciling(workspace, wanted, report_change, cancel, pause):
        while True:
            changed.clear()
            written = _publish(workspace, report, published)
            if _wait(cancel, changed, pause):
                return written


def reconcile(workspace: Workspace, addresses: tuple[Address, ...], report: Report, cancel: threading.Event) -> bool:
    """Fetch what the addresses name in the catalog now, move the node's copies of their refs, and do its upkeep.

    What listings hide is not followed, and the copy stays as it is.

    Returns:
        Whether all others are current, and nothing failed.
    """
    try:
        current, wanted = True, followed(workspace, addresses)
    except StagegateError as error:
        current, wanted = False, ()
        report(f"What this node should hold could not be read: {error}")
    for address in wanted:
        try:
            if _is_current(workspace, address):
                continue
            before = copied_digest(workspace, address.dataset, address.ref) if address.ref else None
            version = stage(workspace, address, cancel=cancel)
        except Cancelled:
            return False
        except StagegateError as error:
            current = False
            report(f"{address} could not be fetched: {error}")
        else:
            if version.bytes_fetched or (address.ref and before != version.digest):
                report(f"{address} is {version.digest}: fetched {bytes_text(version.bytes_fetched)}")
    try:
        for line in (line for plugin in plugins() if plugin.upkeep for line in load(plugin.upkeep)(workspace)):
            report(line)
    except StagegateError as error:
        report(f"The node could not do all that it has to: {error}")
        return False
    return current


def _is_current(workspace: Workspace, address: Address) -> bool:
    """Whether this node has what a ref names, so that nothing is staged: staging reads the whole manifest."""
    dataset, ref = address.dataset, address.named_ref
    if not ref:
        return False
    digest = resolve_for_node(workspace, address)
    if copied_digest(workspace, dataset, ref) != digest or not workspace.cache.views.path(dataset, digest):
        return False
    # As staging does: a collection takes what was not used for long.
    workspace.cache.views.touch(dataset, digest)
    return True


@contextmanager
def _reconciling(
    workspace: Workspace, addresses: tuple[Address, ...], report: Report, cancel: threading.Event, pause: float
) -> Iterator[None]:
    """Reconcile again and again in a thread of its own during the block."""

    def loop() -> None:
        while not cancel.is_set():
            try:
                reconcile(workspace, addresses, report, cancel)
            except Exception as error:  # noqa: BLE001 - its record would stay young on a node that fetches nothing
                report(f"A round failed: {redact(f'{type(error).__name__}: {error}')}")
            cancel.wait(pause)

    thread = threading.Thread(target=loop, name="stagegate-reconcile", daemon=True)
    thread.start()
    try:
        yield
    finally:
        cancel.set()
        thread.join(1.0)


def _wait(cancel: threading.Event, changed: threading.Event, seconds: float) -> bool:
    """Wait until it is time for the next record: at once when something changed. Returns whether to end."""
    end = time.monotonic() + seconds
    while not cancel.wait(LOOK_SECONDS):
        if changed.is_set() or time.monotonic() > end:
            return False
    return True


def _publish(workspace: Workspace, report: Report, published: Published) -> bool:
    try:
        record = publish_record(workspace, recapture=True)
    except StagegateError as error:
        report(f"The node's record was not written: {error}")
        return False
    try:
        published(record)
    except StagegateError as error:
        report(f"The node's record was written, but not told further: {error}")
        return False
    return True


def held_targets(workspace: Workspace) -> tuple[Address, ...]:
    """The targets' refs that this node has copies of. `latest` is moved by staging alone."""
    refs = workspace.cache.refs
    return tuple(Address(dataset, ref) for dataset in refs.datasets() for ref in refs.names(dataset) if ref != LATEST)


def followed(workspace: Workspace, addresses: Iterable[Address]) -> tuple[Address, ...]:
    """Those of the addresses, or of the held targets, whose dataset and target listings show.

    Raises:
        CatalogError: The catalog can't be read.
    """
    hidden = hidden_names(workspace.catalog)
    wanted = tuple(addresses) or held_targets(workspace)
    return tuple(each for each in wanted if hidden.keys().isdisjoint((each.dataset, str(each))))
