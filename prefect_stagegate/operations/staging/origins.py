"""Where a version came from: how it is fetched again, and whether that is still possible."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from prefect_stagegate.errors import StagegateError, UsageError
from prefect_stagegate.model import Action, Origin, PlannedObject, SourceObject
from prefect_stagegate.operations.address import read_spec
from prefect_stagegate.operations.staging.sources import open_sources
from prefect_stagegate.operations.staging.temporary_tables import insert, temporary
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.sources import Source
from prefect_stagegate.spec import Spec

BATCH = 512


def spec_with_sources(workspace: Workspace, dataset: str, digest: str) -> Spec:
    """The newest stored spec that has all sources of a version: it may have been checked under one that has not.

    Raises:
        UsageError: There is none.
    """
    origins = {(one.source, one.position): one for one in workspace.catalog.origins(dataset, digest)}.values()
    for canonical in workspace.catalog.specs(dataset, digest):
        spec = read_spec(canonical)
        if all(_position(spec, origin) is not None for origin in origins):
            return spec
    urls = ", ".join(sorted({origin.source for origin in origins}))
    raise UsageError(
        f"No spec that is stored beside {dataset}@{digest} has the sources that it came from: {urls}",
        hint="Stage the version again from a spec that has them.",
        dataset=dataset,
    )


def plan_origins(
    workspace: Workspace, spec: Spec, dataset: str, digest: str, paths: Collection[str] | None = None
) -> Iterator[PlannedObject]:
    """What bringing a version, or some of its paths, would do with each object.

    Args:
        workspace: Cache and catalog.
        spec: One that has the version's sources.
        dataset: The version's dataset.
        digest: The version.
        paths: Only these entries; None for all.
    """
    for origin in workspace.catalog.origins(dataset, digest):
        if paths is not None and origin.path not in paths:
            continue
        position = _position(spec, origin)
        assert position is not None  # noqa: S101 - the spec was chosen for it
        held = workspace.cache.blobs.holds(origin.digest, origin.size)
        listed = SourceObject(origin.key, origin.size, origin.pin, origin.modified, state=origin.state)
        yield PlannedObject(origin.path, listed, position, Action.REUSE if held else Action.FETCH, origin.digest)


def can_be_fetched(workspace: Workspace, dataset: str, digest: str) -> bool:
    """Whether every entry of a version still lies at its source under the pin that it came by, as listings tell."""
    try:
        spec = spec_with_sources(workspace, dataset, digest)
        with open_sources(workspace, spec) as sources:
            missing = _Missing(workspace.catalog.origins(dataset, digest), spec)
            for position, group in enumerate(sources.groups):
                missing.found(position, group.primary)
            return not missing.count
    except StagegateError:
        return False  # nobody answers, or nobody knows its source any more


class _Missing:
    """The origins that were not seen at their sources yet."""

    def __init__(self, origins: Iterator[Origin], spec: Spec) -> None:
        self._database = temporary("CREATE TABLE origins (position INT, key TEXT, pin TEXT, size INT)", self)
        rows = [(_position(spec, one), one.key, str(one.pin), one.size) for one in origins]
        for start in range(0, len(rows), BATCH):
            insert(self._database, "INSERT INTO origins", rows[start : start + BATCH])
        self._database.execute("CREATE INDEX by_key ON origins (position, key)")

    def found(self, position: int, source: Source) -> None:
        """Strike out what a source lists."""
        strike = "DELETE FROM origins WHERE position = ? AND key = ? AND pin = ? AND size = ?"
        self._database.executemany(strike, ((position, one.key, str(one.pin), one.size) for one in source.list()))

    @property
    def count(self) -> int:
        """How many are left."""
        return int(self._database.execute("SELECT count(*) FROM origins").fetchone()[0])


def _position(spec: Spec, origin: Origin) -> int | None:
    """Where the origin's source stands in a spec. Two sources may have one URL, and differ by their options."""
    alike = [position for position, source in enumerate(spec.sources) if source.url == origin.source]
    return origin.position if origin.position in alike else next(iter(alike), None)
