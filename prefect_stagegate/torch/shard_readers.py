"""Readers of shards: each takes a path and gives samples one after another."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect_stagegate.errors import UsageError
from prefect_stagegate.torch.epoch_order import split_key


def read_tar(path: Path) -> Iterator[dict[str, Any]]:
    """The samples of a tar as WebDataset writes it: bytes by suffix, and the key as `__key__`.

    Members of one sample follow each other and share the path up to the first dot of their name. The tar is not
    compressed. One sample at a time is in memory.

    Raises:
        UsageError: A sample has two members of one suffix.
        tarfile.TarError: It is no such tar, or is cut off.
    """
    sample: dict[str, Any] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            if not member.isreg():
                continue
            key, suffix = split_key(member.name)
            if sample and sample["__key__"] != key:
                yield sample
                sample = {}
            if suffix in sample:
                raise UsageError(f"Two members of one sample have the suffix {suffix!r}", object=member.name)
            if content := tar.extractfile(member):
                sample |= {"__key__": key, suffix: content.read()}
            tar.members = []  # type: ignore[attr-defined]  # or the list of members grows with the tar
    if sample:
        yield sample


def read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, values by column. One row group at a time is in memory.

    Raises:
        pyarrow.ArrowInvalid: It is no Parquet file.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield from file.read_row_group(group).to_pylist()
