"""The keys of a catalog's records. Files with other names are ignored in every listing.

Such files are backups (`.bak`, `~`), editors' swap files and file managers' folders.
"""

from __future__ import annotations

import re

# The look-ahead bounds the length.
_NAME = r"(?![a-z0-9-]{64})[a-z0-9]+(?:-[a-z0-9]+)*"
_HEX = r"[0-9a-f]{64}"
_NUMBER = r"[0-9]{8}\.json"
_REQUEST = r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-[0-9a-f]{12}"
_DATASET = rf"datasets/{_NAME}"
_FOREIGN = r"[a-z0-9-]{1,64}\.(?!json\b)[a-z0-9-]{1,64}"
_PART = r"/[\w-]{1,128}"
_OF_A_DATASET = (
    rf"(?:manifests|origins)/{_HEX}\.parquet",
    rf"(?:specs|failed|evidence|revocations|model-signatures)/{_HEX}/{_NUMBER}",
    rf"(?:decisions|waivers)/{_HEX}/{_NAME}/{_NUMBER}",
    rf"signatures/{_HEX}/[0-9a-f]+\.json",
    rf"approvals/(?:{_NAME}|_policy)/{_REQUEST}/(?:request\.json|{_NUMBER})",
    rf"approvals/{_NAME}/{_REQUEST}/waits/[\w-]+\.json",
    rf"refs/{_NAME}/{_NUMBER}",
    rf"policy/{_NUMBER}",
    rf"(?:proposals|values|parts|fleets|transfers)/{_HEX}\.json",
    rf"profiles/{_HEX}/{_HEX}\.json",
    r"probes\.json",
    # Of other packages: whatever the keys of `Record` can be.
    *(rf"{_FOREIGN}{_PART * depth}\.json" for depth in (1, 2, 3)),
)
_OF_ALL = (r"nodes/[\w.-]+\.json", rf"environments/{_HEX}\.json")
# One expression, since a listing asks about tens of thousands of keys.
_RECORD = re.compile(rf"{_DATASET}/(?:{'|'.join(_OF_A_DATASET)})|{'|'.join(_OF_ALL)}")
_SHAPES = tuple(
    tuple(map(re.compile, shape.split("/")))
    for shape in (*(f"{_DATASET}/{shape}" for shape in _OF_A_DATASET), *_OF_ALL)
)
"""The key pattern of each kind of record, split at the slashes."""

LARGEST = 16 << 20
"""The most bytes of a record, except for those below, and for manifests and origins."""
_LARGEST_OF = {"format": 1 << 10, "nodes": 4 << 20, "failed": 64 << 20, "model-signatures": 64 << 20}
# Something of each of a table's files, which may be a million.
_LARGEST_OF |= dict.fromkeys(("values", "parts", "profiles", "probes.json"), 512 << 20)


def largest(key: str) -> int:
    """The most bytes that a record of this key may have: nobody writes a larger one, and it is not read."""
    kind, *below = key.split("/")
    return _LARGEST_OF.get(below[1] if kind == "datasets" and len(below) > 1 else kind, LARGEST)


def is_record(key: str) -> bool:
    """Whether a key is that of a record."""
    return _RECORD.fullmatch(key) is not None


def leads_to_records(folder: str) -> bool:
    """Whether a folder can hold records; its key has no slash at the end."""
    parts = folder.split("/")
    return any(
        len(parts) < len(shape) and all(pattern.fullmatch(part) for pattern, part in zip(shape, parts, strict=False))
        for shape in _SHAPES
    )


def dataset_of(key: str) -> str:
    """The dataset that a record belongs to; empty for a record of no dataset."""
    kind, _, rest = key.partition("/")
    return rest.partition("/")[0] if kind == "datasets" else ""
