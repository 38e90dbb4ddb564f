"""What each job reads and writes, as datasets of lineage events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from prefect_stagegate.doors import Job
from prefect_stagegate.model import Address, Evidence, Version
from prefect_stagegate.plugins.observe.openlineage.dataset_names import DatasetName, clean
from prefect_stagegate.plugins.observe.openlineage.lineage_datasets import (
    LineageDataset,
    dataset_name,
    source_datasets,
    table_sources,
    version_datasets,
    with_source_columns,
)
from prefect_stagegate.spec import Spec
from prefect_stagegate.workspace import ResolvedVersion, Workspace


@dataclass(frozen=True, slots=True)
class Described:
    """The datasets of a run."""

    inputs: tuple[LineageDataset, ...] = ()
    outputs: tuple[LineageDataset, ...] = ()


def describe(job: Job) -> Described:
    """What a job reads and writes, as far as that is known."""
    match job.name, job.subject:
        case "stage", Spec() | Address() as subject:
            version = job.result if isinstance(job.result, Version) else None
            return _stage(job.workspace, subject, version)
        case "promote", ResolvedVersion() as subject:
            return _promotion(job.workspace, subject, job.target)
        case _, ResolvedVersion() as subject:
            # With what checks found.
            evidence: Iterable[Evidence] = job.result if isinstance(job.result, tuple) else ()
            return Described(tuple(version_datasets(job.workspace.catalog, subject.spec, subject.digest, evidence)))
    raise ValueError(f"the job {job.name} has no datasets")


def _stage(workspace: Workspace, subject: Spec | Address, version: Version | None) -> Described:
    """From a spec's sources to a version and its tables; or from a version to this node's copy of it.

    `version` is None before it is there.
    """
    catalog, node = workspace.catalog, clean(workspace.settings.node)
    if isinstance(subject, Address):
        digest = version.digest if version else ""
        source = LineageDataset(dataset_name(catalog, subject.dataset), digest, "stagegate")
        if version is None:
            return Described((source,))
        place = DatasetName(f"file://{node}", clean(str(version.path)))
        return Described((source,), (LineageDataset(place, digest, "file", files=version.files, bytes=version.bytes),))
    inputs = source_datasets(subject)
    if version is None:
        return Described(tuple(inputs), (LineageDataset(dataset_name(catalog, subject.dataset)),))
    sources = table_sources(catalog, subject, version.digest)
    whole, *tables = version_datasets(catalog, subject, version.digest, sources=sources)
    whole = replace(whole, files=version.files, bytes=version.bytes)
    return Described(tuple(with_source_columns(inputs, tables)), (whole, *tables))


def _promotion(workspace: Workspace, version: ResolvedVersion, ref: str) -> Described:
    """From a version and its tables to a ref's, which have the same columns."""
    inputs = version_datasets(workspace.catalog, version.spec, version.digest)
    outputs = version_datasets(
        workspace.catalog,
        version.spec,
        version.digest,
        ref=ref,
        sources={table: (each.name,) for table, each in zip(version.spec.contract.tables, inputs[1:], strict=False)},
    )
    return Described(tuple(inputs), tuple(outputs))
