"""A version's origins: planning to fetch it again, and whether that is still possible."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from prefect_stagegate.catalog.version_records import read_origins, staged_specs
from prefect_stagegate.errors import StagegateError, UsageError
from prefect_stagegate.jobs.address import read_spec
from prefect_stagegate.jobs.staging.open_sources import open_sources
from prefect_stagegate.jobs.staging.temporary_tables import BATCH, insert, temporary
from prefect_stagegate.model import Action, Origin, PlannedObject, SourceObject
from prefect_stagegate.sources import Source
from prefect_stagegate.spec import Spec
from prefect_stagegate.spec.load import Recorded
from prefect_stagegate.workspace import Workspace


def spec_with_sources(workspace: Workspace, dataset: str, digest: str) -> Spec:
    """The newest stored spec of a version that has all of its sources.

    A version may have been checked under a later spec that lacks some of them.

    Raises:
        UsageError: No stored spec has them.
    """
    recorded = read_origins(workspace.catalog, dataset, digest)
    # One origin tells as much of its source as all of them.
    origins = {(origin.source, origin.position): origin for origin in recorded}.values()
    for canonical in staged_specs(workspace.catalog, dataset, digest):
        spec = read_spec(Recorded(canonical))
        if all(_position(spec, origin) is not None for origin in origins):
            return spec
    urls = ", ".join(sorted({origin.source for origin in origins}))
    raise UsageError(
        f"No spec stored with {dataset}@{digest} has its sources: {urls}",
        hint="Stage the version again from a spec that has them.",
        dataset=dataset,
    )


def plan_origins(
    workspace: Workspace, spec: Spec, dataset: str, digest: str, paths: Collection[str] | None = None
) -> Iterator[PlannedObject]:
    """Plan the fetching of a version, or of some of its paths.

    `spec` must have the version's sources. With `paths`, only these entries are planned.
    """
    for origin in read_origins(workspace.catalog, dataset, digest):
        if paths is not None and origin.path not in paths:
            continue
        position = _position(spec, origin)
        assert position is not None  # noqa: S101 - the spec was chosen for it
        held = workspace.cache.blobs.holds(origin.digest, origin.size)
        listed = SourceObject(origin.key, origin.size, origin.pin, origin.modified, state=origin.state)
        yield PlannedObject(origin.path, listed, position, Action.REUSE if held else Action.FETCH, origin.digest)


def can_be_fetched(workspace: Workspace, dataset: str, digest: str) -> bool:
    """Whether the sources still list every entry of a version, under the pin that it was fetched by."""
    try:
        spec = spec_with_sources(workspace, dataset, digest)
        with open_sources(workspace, spec) as sources:
            missing = _Missing(read_origins(workspace.catalog, dataset, digest), spec)
            for position, group in enumerate(sources.groups):
                missing.remove_listed(position, group.primary)
            return not missing.count
    except StagegateError:
        return False  # a source does not answer, or no spec names it any more


class _Missing:
    """The origins that no source has listed yet."""

    def __init__(self, origins: Iterator[Origin], spec: Spec) -> None:
        self._database = temporary("CREATE TABLE origins (position INT, key TEXT, pin TEXT, size INT)", self)
        rows = [(_position(spec, origin), origin.key, str(origin.pin), origin.size) for origin in origins]
        for start in range(0, len(rows), BATCH):
            insert(self._database, "INSERT INTO origins", rows[start : start + BATCH])
        # Built after the rows: one sort is cheaper than keeping an index in order row by row.
        self._database.execute("CREATE INDEX by_key ON origins (position, key)")

    def remove_listed(self, position: int, source: Source) -> None:
        """Remove the origins that a source lists."""
        delete = "DELETE FROM origins WHERE position = ? AND key = ? AND pin = ? AND size = ?"
        rows = ((position, listed.key, str(listed.pin), listed.size) for listed in source.list())
        self._database.executemany(delete, rows)

    @property
    def count(self) -> int:
        """The origins that are left."""
        return int(self._database.execute("SELECT count(*) FROM origins").fetchone()[0])


def _position(spec: Spec, origin: Origin) -> int | None:
    """The position of the origin's source in a spec; None when the spec lacks it."""
    # Two sources may have one URL and differ by their options, so the recorded position is preferred.
    positions = [position for position, source in enumerate(spec.sources) if source.url == origin.source]
    return origin.position if origin.position in positions else next(iter(positions), None)
