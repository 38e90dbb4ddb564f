"""What is to happen to each listed object: reuse the bytes that the cache holds, or fetch them.

Pure: the caller says what is remembered and what is held. Nothing is changed here.
"""

from __future__ import annotations

from prefect_stagegate.errors import UsageError
from prefect_stagegate.manifest import path_problem
from prefect_stagegate.model import Action, PlannedObject, SourceObject


def dataset_path(into: str, key: str) -> str:
    """Where an object of a source stands in the dataset.

    >>> dataset_path("flights/", "2013-01.parquet"), dataset_path("", "planes.csv")
    ('flights/2013-01.parquet', 'planes.csv')
    """
    return f"{into.rstrip('/')}/{key}" if into else key


def plan_object(
    listed: SourceObject, *, path: str, source: int, url: str, remembered: str | None, held: bool
) -> PlannedObject:
    """Decide about one object.

    Args:
        listed: The object as its source lists it.
        path: Where it stands in the dataset.
        source: Position of its source in the spec.
        url: The source's URL, for errors.
        remembered: The digest that this pin is known to have, if any.
        held: Whether the cache holds a blob of that digest.

    Raises:
        UsageError: The path can't stand in a manifest.
    """
    if problem := path_problem(path):
        raise UsageError(
            f"The object {listed.key!r} can't stand in a dataset: {problem}",
            hint="Rename it at its source, or leave it out by `exclude:`.",
            source=url,
        )
    action = Action.REUSE if remembered and held else Action.FETCH
    return PlannedObject(path, listed, source, action, remembered or "")
