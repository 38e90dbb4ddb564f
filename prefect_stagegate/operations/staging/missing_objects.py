"""Listings that leave out what is there: found by asking for objects of the last version that a listing doesn't name.

A dropped page looks like a shorter listing. Most objects of a dataset stay from one version to the next, though, so
whatever the last version had and the new listing lacks was deleted, or was left out; one request tells which. Of a
source with a `limit` nothing is asked: what it left out may have given its place to another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prefect_stagegate.errors import AccessDenied, ObjectVanished, SourceUnavailable
from prefect_stagegate.model import Origin, SourceObject
from prefect_stagegate.operations.staging.paths import Paths
from prefect_stagegate.operations.staging.sources import Sources
from prefect_stagegate.units import count_text

ASKED = 64
"""Missing objects of a source that are asked for at most, spread over all of them: a page of S3 has 1000 keys."""

Missing = dict[int, list[str]]
"""The keys that are missing, by the position of their source."""


def expected(origins: Iterable[Origin], sources: Sources) -> Iterator[str]:
    """The paths at which the last version's objects should stand again: where all do, nothing was left out."""
    for origin in origins:
        position = _position(origin, sources)
        if position is not None:
            yield sources.selections[position].path(origin.key)


def require_complete(origins: Iterator[Origin], sources: Sources, paths: Paths) -> None:
    """Ask for objects that the last version had and nobody listed now.

    Args:
        origins: The last version's.
        sources: The spec's, opened.
        paths: What was listed, all of it.

    Raises:
        SourceUnavailable: One of them is there, so the listing left it out.
    """
    for position, keys in _missing(origins, sources, paths).items():
        source = sources.groups[position].primary
        for key in keys[:: -(-len(keys) // ASKED)]:
            try:
                found = source.find(key)
            except (ObjectVanished, AccessDenied):  # a server that may not be listed refuses to say what is absent
                continue
            if not sources.selections[position].takes(found):  # it grew too large or too old meanwhile
                continue
            raise SourceUnavailable(
                f"The listing leaves out {key!r}, which is there; of the last version it lacks "
                f"{count_text(len(keys), 'object')}",
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
        had = SourceObject(origin.key, origin.size, origin.pin, origin.modified)
        wanted = selection.wants(origin.key) and selection.takes(had)
        if wanted and not paths.has(selection.path(origin.key)):
            missing.setdefault(position, []).append(origin.key)
    return missing


def _position(origin: Origin, sources: Sources) -> int | None:
    """Where the origin's source stands in the spec; None when it is not there now, or is not to be asked."""
    position = origin.position
    here = position < len(sources.specs) and sources.specs[position].url == origin.source
    return position if here and sources.specs[position].limit is None else None
