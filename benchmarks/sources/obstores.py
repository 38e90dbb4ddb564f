"""Copying by obstore, as a program that only wants the files on disk: many streams in one loop, each to a file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from obstore.store import ObjectStore

AT_ONCE = 32
CHUNK = 1 << 20


def copy_objects(
    store: ObjectStore, out: Path, names: Iterable[str] | None = None, versions: Mapping[str, str] | None = None
) -> None:
    """Copy the objects of these names, else all that the store lists; at these versions, where they are known."""
    asyncio.run(_copy(store, out, iter(_listed(store) if names is None else names), versions or {}))


def client_options(**more: Any) -> Any:
    """Those of every store here."""
    return {"allow_http": True, "timeout": "100s", **more}


def _listed(store: ObjectStore) -> Iterator[str]:
    import obstore

    for page in obstore.list(store, chunk_size=1000):
        for one in page:
            yield one["path"]


async def _copy(store: ObjectStore, out: Path, names: Iterator[str], versions: Mapping[str, str]) -> None:
    import obstore

    async def work() -> None:
        for name in names:  # which the workers share
            got = await obstore.get_async(store, name, options={"version": versions[name]} if versions else None)
            with (out / name.rpartition("/")[2]).open("wb", buffering=0) as file:
                async for chunk in got.stream(CHUNK):
                    file.write(chunk)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
