"""Detecting incomplete listings: request objects of the last version that the new listing doesn't name.

A dropped page looks like a shorter listing. Most objects of a dataset stay from one version to the next, though, so
what the last version had and the new listing lacks was either deleted or left out; one request tells which. Sources
with a `limit` are not checked: a newer object may have taken the place of the one that is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prefect_stagegate.errors import AccessDenied, ObjectVanished, SourceUnavailable
from prefect_stagegate.jobs.staging.open_sources import Sources
from prefect_stagegate.jobs.staging.temporary_tables import Paths
from prefect_stagegate.model import Origin, SourceObject
from prefect_stagegate.units import count_text

MAX_PROBES = 64
"""Missing objects of a source that are requested at most, spread over all of them: a page of S3 has 1000 keys."""

Missing = dict[int, list[str]]
"""The keys that are missing, by the position of their source."""


def expected(origins: Iterable[Origin], sources: Sources) -> Iterator[str]:
    """The paths that the last version's objects take under the new spec. If all are listed, nothing was left out."""
    for origin in origins:
        position = _position(origin, sources)
        if position is not None:
            yield sources.selections[position].path(origin.key)


def require_complete(origins: Iterator[Origin], sources: Sources, paths: Paths) -> None:
    """Request objects of the last version that the new listing lacks; fail when one of them is there.

    Raises:
        SourceUnavailable: The listing left out an object that is there.
    """
    for position, keys in _missing(origins, sources, paths).items():
        source = sources.groups[position].primary
        # Evenly spread, so that one dropped page of the listing is hit.
        for key in keys[:: -(-len(keys) // MAX_PROBES)]:
            try:
                present = source.find(key)
            except (ObjectVanished, AccessDenied):  # a server that may not be listed refuses to say what is absent
                continue
            if not sources.selections[position].takes(present):  # it grew too large or too old meanwhile
                continue
            raise SourceUnavailable(
                f"The listing leaves out {key!r}, which exists; it lacks {count_text(len(keys), 'object')} of the last "
                "version",
                hint="Stage again. If it stays so, the server's listings can't be trusted.",
                source=source.url,
                object=key,
            )


def _missing(origins: Iterator[Origin], sources: Sources, paths: Paths) -> Missing:
    missing: Missing = {}
    for origin in origins:
        position = _position(origin, sources)
        if position is None:
            continue
        selection = sources.selections[position]
        previous = SourceObject(origin.key, origin.size, origin.pin, origin.modified)
        wanted = selection.wants(origin.key) and selection.takes(previous)
        if wanted and not paths.has(selection.path(origin.key)):
            missing.setdefault(position, []).append(origin.key)
    return missing


def _position(origin: Origin, sources: Sources) -> int | None:
    """The position of the origin's source in the spec; None when the spec lacks it, or gives it a `limit`."""
    position = origin.position
    is_same = position < len(sources.specs) and sources.specs[position].url == origin.source
    return position if is_same and sources.specs[position].limit is None else None
