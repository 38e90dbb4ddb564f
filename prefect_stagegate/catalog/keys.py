"""The keys of a catalog's records. Files with other names are ignored in every listing.

Such files are backups (`.bak`, `~`), editors' swap files and file managers' folders.
"""

from __future__ import annotations

import re

# The look-ahead bounds the length.
_NAME = r"(?=.{1,63}$)[a-z0-9]+(-[a-z0-9]+)*"
_HEX = r"[0-9a-f]{64}"
_NUMBER = r"[0-9]{8}\.json"
_REQUEST = r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-[0-9a-f]{12}"
_DATASET = rf"datasets/{_NAME}"
_SHAPES = tuple(
    tuple(map(re.compile, shape.split("/")))
    for shape in (
        rf"{_DATASET}/(manifests|origins)/{_HEX}\.parquet",
        rf"{_DATASET}/(specs|failed|evidence|revocations)/{_HEX}/{_NUMBER}",
        rf"{_DATASET}/(decisions|waivers)/{_HEX}/{_NAME}/{_NUMBER}",
        rf"{_DATASET}/signatures/{_HEX}/[0-9a-f]+\.json",
        rf"{_DATASET}/approvals/({_NAME}|_policy)/{_REQUEST}/(request\.json|{_NUMBER})",
        rf"{_DATASET}/approvals/{_NAME}/{_REQUEST}/waits/[\w-]+\.json",
        rf"{_DATASET}/refs/{_NAME}/{_NUMBER}",
        rf"{_DATASET}/policy/{_NUMBER}",
        rf"{_DATASET}/(proposals|values|parts|fleets)/{_HEX}\.json",
        rf"{_DATASET}/(profiles|readings)/{_HEX}/{_HEX}\.json",
        rf"{_DATASET}/probes\.json",
        r"nodes/[\w.-]+\.json",
    )
)
"""The key pattern of each kind of record, split at the slashes."""


def is_record(key: str) -> bool:
    """Whether a key is that of a record."""
    parts = key.split("/")
    return any(len(parts) == len(shape) and _fits(parts, shape) for shape in _SHAPES)


def leads_to_records(folder: str) -> bool:
    """Whether a folder can hold records; its key has no slash at the end."""
    parts = folder.split("/")
    return any(len(parts) < len(shape) and _fits(parts, shape) for shape in _SHAPES)


def dataset_of(key: str) -> str:
    """The dataset that a record belongs to; empty for a record of no dataset."""
    kind, _, rest = key.partition("/")
    return rest.partition("/")[0] if kind == "datasets" else ""


def _fits(parts: list[str], shape: tuple[re.Pattern[str], ...]) -> bool:
    return all(pattern.fullmatch(part) for part, pattern in zip(parts, shape, strict=False))
