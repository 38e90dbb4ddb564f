"""A spec's sources, opened with their credentials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prefect_stagegate.catalog import RefEntry
from prefect_stagegate.clock import now
from prefect_stagegate.errors import CorruptRecord, SourceError, TransferFailed, UsageError
from prefect_stagegate.jobs.address import spec_beside
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.sources import Opening, Recall, Source
from prefect_stagegate.sources.replica import ReplicaSet
from prefect_stagegate.sources.selection.object_selection import Selection
from prefect_stagegate.sources.terms import nothing
from prefect_stagegate.spec import MirrorSpec, SourceSpec, Spec
from prefect_stagegate.transport.transfer import Limits, SourceGroup
from prefect_stagegate.workspace import ResolveCredentials, Workspace


@dataclass(frozen=True)
class Sources:
    """The opened sources of a spec, in its order."""

    specs: tuple[SourceSpec, ...]
    groups: tuple[SourceGroup, ...]
    selections: tuple[Selection, ...]
    """Which objects of each source are taken, as of the time when it was opened."""

    def identities(self, workspace: Workspace, last: RefEntry) -> dict[tuple[int, str], str]:
        """The identity of each source of a version that is one of these, by its position and URL in the version's spec.

        None where that spec can't be read. Other options or credentials may lead a URL to other objects.
        """
        try:
            earlier = spec_beside(workspace.catalog, last.dataset, last.digest).sources
        except (CorruptRecord, UsageError):
            return {}
        now = [(_place(spec), group.primary.identity) for spec, group in zip(self.specs, self.groups, strict=True)]
        places = [(position, spec.url, _place(spec)) for position, spec in enumerate(earlier)]
        return {(at, url): identity for at, url, there in places for here, identity in now if here == there}


def _place(spec: SourceSpec) -> tuple[object, ...]:
    return spec.url, spec.options, spec.credentials


@contextmanager
def open_sources(
    workspace: Workspace, spec: Spec, *, only: int | None = None, replicas: Sequence[ReplicaSet] = ()
) -> Iterator[Sources]:
    """Open every source and mirror of a spec, or those at the position `only`, for the time of the block.

    `replicas` are asked before them.

    Raises:
        UsageError: A URL or an option can't be used, or credentials aren't found.
        SourceError: One can't be opened, or the block raises it. The error names the dataset.
    """
    with ExitStack() as stack:

        def opened(source_spec: SourceSpec | MirrorSpec) -> Source:
            resolve = workspace.resolve_credentials
            scratch, recall = workspace.cache.layout.ingest, workspace.cache.memory.size
            source = open_spec_source(source_spec, workspace.settings, resolve, scratch=scratch, recall=recall)
            # At once, so that it is closed also when a later one can't be opened.
            stack.callback(source.close)
            return source

        chosen = spec.sources if only is None else spec.sources[only : only + 1]
        groups, selections = [], []
        try:
            for source in chosen:
                opening = _opening(source, workspace.settings, workspace.resolve_credentials)
                groups.append(SourceGroup(opened(source), tuple(map(opened, source.mirrors)), replicas, opening))
                selections.append(Selection(source, now()))
            yield Sources(tuple(chosen), tuple(groups), tuple(selections))
        except (SourceError, TransferFailed) as error:
            for failure in error.failures if isinstance(error, TransferFailed) else (error,):
                failure.dataset = failure.dataset or spec.dataset  # which sources don't know
            raise


def open_spec_source(
    spec: SourceSpec | MirrorSpec,
    settings: Settings,
    resolve_credentials: ResolveCredentials,
    *,
    scratch: Path | None = None,
    recall: Recall = nothing,
) -> Source:
    """Open a source or a mirror of a spec with the credentials that it names, once more when they expire.

    `scratch` is a folder for files that the source writes before they are read; `recall` looks up the sizes of objects
    that were made before.

    Raises:
        UsageError: The URL or an option can't be used, or credentials aren't found.
    """
    return _opening(spec, settings, resolve_credentials).open(str(scratch) if scratch else None, recall)


def _opening(spec: SourceSpec | MirrorSpec, settings: Settings, resolve_credentials: ResolveCredentials) -> Opening:
    return Opening(
        spec.url,
        spec.options,
        partial(resolve_credentials, spec.credentials) if spec.credentials else dict,
        settings.of(Limits).idle,
        tuple(settings.allowed_hosts),
        settings.max_entries,
    )
