"""Environments of attestations: one record for all decisions that were made in the same one, named by its digest.

Where a Statement has its environment, the catalog stores `sha256:<hex>` of it. `whole_statement` puts the environment
back, so a Statement keeps its own digest and its signatures. Statements of earlier releases are stored whole.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from prefect_stagegate.catalog.records import Records, decode, is_record
from prefect_stagegate.errors import CorruptRecord
from prefect_stagegate.model.canonical import canonical, digest_of, sha256_of

if TYPE_CHECKING:
    from prefect_stagegate.catalog.catalog import Catalog

MAX_CACHED = 16
"""Environments that a process keeps in memory; each has some 300 distributions."""


_reading = threading.Lock()


def put_environment(catalog: Catalog, statement: Mapping[str, Any]) -> dict[str, Any]:
    """Store a Statement's environment, and return the Statement with its digest instead."""
    short = shortened(statement)
    if short != statement:
        data, key = canonical(_environment_of(statement)), _key(_environment_of(short))
        # Over a damaged one, too: its name says what it must hold.
        if catalog.records.read(key) != data:
            catalog.records.replace(key, data)
    return short


def whole_statement(catalog: Catalog, statement: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stored Statement as it was made and signed.

    Raises:
        CorruptRecord: The record of its environment is gone, or holds another one.
    """
    digest = _environment_of(statement)
    # Anything else is no digest, for which no record is looked up; `read_statement` refuses it.
    if not isinstance(digest, str) or not is_record(_key(digest)):
        return statement
    # One thread at a time: most decisions have the same environment, and it is read once.
    with _reading:
        return _with_environment(statement, _read(catalog.records, digest))


@lru_cache(MAX_CACHED)
def _read(records: Records, digest: str) -> dict[str, Any]:
    key = _key(digest)
    data = records.read(key)
    if data is None or sha256_of(data) != digest:
        raise CorruptRecord(
            f"The catalog's record {key} {'is gone' if data is None else 'holds another environment'}",
            hint="Restore it from a backup. A check by a gate in that environment writes it again, too.",
        )
    return decode(dict[str, Any], data, key)


def shortened(statement: Mapping[str, Any]) -> dict[str, Any]:
    """A Statement with its environment's digest instead of the environment."""
    environment = _environment_of(statement)
    return _with_environment(statement, digest_of(environment)) if isinstance(environment, dict) else dict(statement)


def _environment_of(statement: Mapping[str, Any]) -> Any:
    """The environment, or its digest; None for anything but a Statement."""
    try:
        return statement["predicate"]["stagegate"]["environment"]
    except (KeyError, TypeError):
        return None


def _with_environment(statement: Mapping[str, Any], environment: object) -> dict[str, Any]:
    predicate = statement["predicate"]
    return {
        **statement,
        "predicate": {**predicate, "stagegate": {**predicate["stagegate"], "environment": environment}},
    }


def _key(digest: str) -> str:
    return f"environments/{digest.removeprefix('sha256:')}.json"
