"""Deciding what happens to each listed object: reuse the bytes that the cache holds, or fetch them.

Pure: the caller passes what the pin memory and the cache know. Nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Action, PlannedObject, SourceObject
from prefect_stagegate.model.manifest import path_problem
from prefect_stagegate.units import count_text

Rehash = Literal["always", "when_weak", "never"]
"""Which objects a staging reads again although it remembers their pin."""
LARGEST = 2**63 - 1
"""Bytes of the largest file that Linux and the cache's index know."""
NAMED = 20
"""Refused objects that an error names; it counts the others."""


def dataset_path(into: str, key: str) -> str:
    """An object's path in the dataset.

    >>> dataset_path("flights/", "2013-01.parquet"), dataset_path("", "planes.csv")
    ('flights/2013-01.parquet', 'planes.csv')
    """
    return f"{into.rstrip('/')}/{key}" if into else key


def check_objects(objects: Iterable[tuple[str, SourceObject, str]]) -> None:
    """Refuse objects whose paths or sizes can't be in a manifest, all of them in one error.

    Args:
        objects: Each object's path in the dataset, the object, and its source's URL.

    Raises:
        UsageError: There are such objects. The error names the first ones, each with its reason.
    """
    refused = [
        (listed.key, url, problem)
        for path, listed, url in objects
        if (problem := path_problem(path) or ("" if 0 <= listed.size <= LARGEST else "no file has its size"))
    ]
    if not refused:
        return
    reasons = [f"{key!r} of {url}: {problem}" for key, url, problem in refused[:NAMED]]
    more = [f"and {len(refused) - NAMED} more"] if len(refused) > NAMED else []
    count = count_text(len(refused), "object")
    raise UsageError(
        f"{count} can't be in a dataset: {'; '.join(reasons + more)}",
        hint="Correct them at their source, or leave them out by `exclude:`.",
    )


def plan_object(
    listed: SourceObject, *, path: str, source: int, remembered: str | None, held: bool, rehash: Rehash = "never"
) -> PlannedObject:
    """Plan one object.

    Args:
        listed: The object as its source lists it.
        path: Its path in the dataset, which `check_objects` accepted.
        source: Position of its source in the spec.
        remembered: The known digest of its pin, if any.
        held: Whether the cache holds a blob of that digest.
        rehash: Its source's setting.
    """
    # Such an object is read again even if the digest of its pin is known.
    if rehash == "always" or (rehash == "when_weak" and listed.pin.strength == "weak"):
        return PlannedObject(path, listed, source, Action.FETCH, doubted=True)
    action = Action.REUSE if remembered and held else Action.FETCH
    return PlannedObject(path, listed, source, action, remembered or "")
