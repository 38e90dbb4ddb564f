"""A spec's sources, opened with their credentials."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prefect_stagegate.clock import now
from prefect_stagegate.errors import SourceError, TransferFailed
from prefect_stagegate.operations.workspace import ResolveCredentials, Workspace
from prefect_stagegate.settings import Settings
from prefect_stagegate.sources import Recall, Source, open_source, renewing
from prefect_stagegate.sources.selection.selection import Selection
from prefect_stagegate.sources.terms import nothing
from prefect_stagegate.spec import MirrorSpec, SourceSpec, Spec
from prefect_stagegate.transfer import SourceGroup


@dataclass(frozen=True)
class Sources:
    """The opened sources of a spec, in its order."""

    specs: tuple[SourceSpec, ...]
    groups: tuple[SourceGroup, ...]
    selections: tuple[Selection, ...]
    """What is taken of each, by the time at which they were opened."""

    @property
    def urls(self) -> tuple[str, ...]:
        """Each source as the spec names it; a spec's URLs hold no credentials."""
        return tuple(spec.url for spec in self.specs)

    def only(self, position: int) -> Sources:
        """The one source at a position of the spec, alone."""
        chosen = slice(position, position + 1)
        return Sources(self.specs[chosen], self.groups[chosen], self.selections[chosen])

    @property
    def identities(self) -> dict[str, str]:
        """What tells each source's objects from those of another server, by the source's URL."""
        return {spec.url: group.primary.identity for spec, group in zip(self.specs, self.groups, strict=True)}


@contextmanager
def open_sources(workspace: Workspace, spec: Spec, *, only: int | None = None) -> Iterator[Sources]:
    """Open every source and mirror of a spec, or those at one position of it, for the time of the block.

    Raises:
        UsageError: A URL or an option can't be used, or credentials aren't found.
        SourceError: One can't be opened, or what the block raises; it names the dataset.
    """
    with _naming(spec.dataset), ExitStack() as stack:

        def opened(one: SourceSpec | MirrorSpec) -> Source:
            scratch, recall = workspace.cache.layout.ingest, workspace.cache.memory.size
            reopen = partial(
                open_one, one, workspace.settings, workspace.resolve_credentials, scratch=scratch, recall=recall
            )
            source = renewing(reopen)
            stack.callback(source.close)
            return source

        chosen = spec.sources if only is None else spec.sources[only : only + 1]
        groups = (SourceGroup(opened(one), tuple(map(opened, one.mirrors))) for one in chosen)
        selections = tuple(Selection(one, now()) for one in chosen)
        yield Sources(tuple(chosen), tuple(groups), selections)


@contextmanager
def _naming(dataset: str) -> Iterator[None]:
    """Name the dataset in what the block raises about sources, which know none."""
    try:
        yield
    except (SourceError, TransferFailed) as error:
        for failure in error.failures if isinstance(error, TransferFailed) else (error,):
            failure.dataset = failure.dataset or dataset
        raise


def open_one(
    one: SourceSpec | MirrorSpec,
    settings: Settings,
    resolve_credentials: ResolveCredentials,
    *,
    scratch: Path | None = None,
    recall: Recall = nothing,
) -> Source:
    """Open a source or a mirror of a spec with the credentials that it names.

    Args:
        one: The source or mirror.
        settings: What is set for all.
        resolve_credentials: Gives the options behind a block.
        scratch: A folder on whose volume the source may keep what it writes before it is read.
        recall: Tells the sizes of objects that were made before.

    Raises:
        UsageError: The URL or an option can't be used, or credentials aren't found.
    """
    credentials = resolve_credentials(one.credentials) if one.credentials else {}
    return open_source(
        one.url,
        one.options,
        credentials=credentials,
        idle=settings.idle_timeout,
        allowed=settings.allowed_hosts,
        scratch=str(scratch) if scratch else None,
        recall=recall,
        most=settings.max_entries,
    )
