"""The catalog as metrics: what each target names, how long its evidence lasts, and what waits.

The catalog is read as `stagegate status` reads it: the number of requests depends on datasets and targets, not on
versions. Only counting a dataset's versions takes a listing, one request for each thousand.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from prefect_stagegate.catalog.version_records import listed_datasets, version_digests
from prefect_stagegate.clock import moment
from prefect_stagegate.errors import CatalogError, SourceError
from prefect_stagegate.jobs.gating.consent import POLICY_TARGET
from prefect_stagegate.jobs.review.inbox import InboxLine
from prefect_stagegate.jobs.review.status import READERS, DatasetStatus, status
from prefect_stagegate.plugins.observe.monitoring import families
from prefect_stagegate.plugins.observe.monitoring.families import Family, Sample
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace

MOST_DATASETS = 1_000
"""Datasets that have metrics of their own, by name; `stagegate_datasets` counts the others, too."""


def catalog_samples(workspace: Workspace) -> Iterator[Sample]:
    """The metrics of the catalog; where it can't be read, only that."""
    began, unreadable = time.perf_counter(), UnreadableRecords()
    try:
        names = listed_datasets(workspace.catalog)
        statuses = status(workspace, "", unreadable, most=MOST_DATASETS)
        with ThreadPoolExecutor(READERS, "stagegate-metrics") as pool:
            numbers = list(pool.map(lambda name: len(version_digests(workspace.catalog, name)), names[:MOST_DATASETS]))
    except (CatalogError, SourceError):  # a store that does not answer is reported as a source
        yield Sample(families.CATALOG_UP, (), 0)
        return
    yield Sample(families.CATALOG_UP, (), 1)
    yield Sample(families.DATASETS, (), len(names))
    yield Sample(families.CATALOG_UNREADABLE, (), len(unreadable.all))
    yield from (Sample(families.VERSIONS, (name,), number) for name, number in zip(names, numbers, strict=False))
    for dataset in statuses:
        yield from _of_dataset(workspace, dataset)
    yield Sample(families.CATALOG_SECONDS, (), time.perf_counter() - began)


def _of_dataset(workspace: Workspace, dataset: DatasetStatus) -> Iterator[Sample]:
    name = dataset.dataset
    copies = workspace.cache.refs.of(name, UnreadableRecords())
    for ref in dataset.refs:
        yield from _at(families.REF_MOVED, ref.at, name, ref.ref)
        yield from _at(families.REQUESTED, min((request.at for request in ref.waits), default=""), name, ref.ref)
        if ref.ref in copies:
            yield Sample(families.NODE_CURRENT, (name, ref.ref), copies[ref.ref] == ref.digest)
    oldest = min((request.at for request in dataset.policy_requests), default="")
    yield from _at(families.REQUESTED, oldest, name, POLICY_TARGET)
    for line in dataset.lines:
        if line.target:
            yield from _of_target(line)


def _of_target(line: InboxLine) -> Iterator[Sample]:
    target = (line.dataset, line.target)
    yield Sample(families.STANDING, (*target, line.standing.value), 1)
    if line.accepted:
        yield from _at(families.EVIDENCE_ENDS, line.accepted.ends, *target)
    if line.proposed:
        yield from _at(families.PROPOSED, line.proposed.since, *target)
        yield from _at(families.DECIDED, line.proposed.decided_at, *target, line.proposed.outcome)


def _at(family: Family, stamp: str, *labels: str) -> Iterator[Sample]:
    """The moment of a time as the catalog has it; nothing where it has none."""
    with suppress(ValueError):
        yield Sample(family, labels, moment(stamp).timestamp())
