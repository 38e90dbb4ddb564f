"""Bringing what a fuzzed server holds into a cache, and the promise that must hold: its bytes, or a typed error."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from blake3 import blake3

from fuzzing.campaign import WrongOutcome
from prefect_stagegate.cache import Cache
from prefect_stagegate.durable import Durability
from prefect_stagegate.errors import AdapterFailed, StagegateError
from prefect_stagegate.model import Action, PlannedObject, SourceObject
from prefect_stagegate.model.manifest import path_problem
from prefect_stagegate.sources import Source, open_source
from prefect_stagegate.transport.transfer import Limits, SourceGroup, transfer

IDLE = 0.4
"""Seconds without a byte after which the sources give up."""
LISTED = 2000
"""Objects of a listing that are looked at: a mutated one may name more, and may not end."""
WRITTEN = 1_700_000_000
"""When the files were written, in seconds since the epoch: the same in each run, as etags are made of it."""
LIMITS = Limits(in_flight=4, part=64 << 10, memory=1 << 20, retries=8)

FILES: dict[str, bytes] = {
    "a.bin": bytes(range(256)) * 4,
    "empty.bin": b"",
    "folder/b.txt": b"year,month,day\n" + b"2013,1,1\n" * 700,
    "folder/deep/c.bin": b"\x00\xff" * 2500,
    "large.bin": bytes(number * 7 % 251 for number in range(200_000)),
    "sp ace & é.txt": b"x",
}
"""What the servers hold."""


@dataclass(frozen=True)
class Opened:
    """How a case opens the source."""

    url: str
    options: Mapping[str, Any]


def put_files(folder: Path) -> None:
    """Write what the servers hold below a folder."""
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        os.utime(folder / name, (WRITTEN, WRITTEN))


def stage_case(opened: Opened, scratch: Path, draw: random.Random, expected: Mapping[str, bytes] = FILES) -> str:
    """List a source, bring what it lists into a new cache, and read a part of it.

    The digests of what the server holds are known, as they are to whoever brings a version that exists.

    Raises:
        StagegateError: What the server answered was refused.
        WrongOutcome: Something was taken for what it is not.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    source = open_source(opened.url, opened.options, idle=IDLE)
    try:
        objects = list(islice(source.list(), LISTED))
        usable = {obj.key: obj for obj in objects if not path_problem(obj.key)}
        _read_a_part(source, usable, draw, expected)
        return _bring(source, usable, scratch, expected)
    finally:
        source.close()


def _read_a_part(
    source: Source, objects: Mapping[str, SourceObject], draw: random.Random, expected: Mapping[str, bytes]
) -> None:
    """A read fills all of the buffer, or raises an error."""
    key = draw.choice(sorted(expected))
    listed = objects.get(key)
    if listed is None or not 0 < listed.size <= len(expected[key]):
        return
    start = draw.randrange(listed.size) if source.ranges else 0
    end = draw.randrange(start, listed.size + 1) if source.ranges else listed.size
    filling = draw.randbytes(end - start)
    buffer = bytearray(filling)
    try:
        source.read_into(source.find(key), start, memoryview(buffer))
    except StagegateError:
        return
    for offset in range(0, len(buffer) - 7, 8):
        if buffer[offset : offset + 8] == filling[offset : offset + 8]:
            raise WrongOutcome(f"a read of {key} from {start} to {end} left byte {offset} as it was, and no error")


def _bring(source: Source, objects: Mapping[str, SourceObject], scratch: Path, expected: Mapping[str, bytes]) -> str:
    cache = Cache.open(scratch, durability=Durability.NONE)
    digests = {key: "blake3:" + blake3(data).hexdigest() for key, data in expected.items()}
    plan = [PlannedObject(key, listed, 0, Action.FETCH, digests.get(key, "")) for key, listed in objects.items()]
    running = transfer(iter(plan), [SourceGroup(source)], cache, limits=LIMITS, max_failed=len(plan))
    try:
        receipts = list(running)
    finally:
        running.close()
        cache.memory.close()
    for failure in running.stats.failures:
        if not isinstance(failure, StagegateError):
            raise WrongOutcome(f"an object failed with {failure!r}")
        if isinstance(failure, AdapterFailed):
            raise failure
    for receipt in receipts:
        data = cache.layout.blob(receipt.digest).read_bytes()
        if receipt.path in expected and data != expected[receipt.path]:
            raise WrongOutcome(f"{receipt.path} was staged with other bytes than the source's")
        if "blake3:" + blake3(data).hexdigest() != receipt.digest:
            raise WrongOutcome(f"{receipt.path} was staged with other bytes than its receipt says")
    whole = expected.keys() <= {receipt.path for receipt in receipts}
    return "staged" if whole else "staged in part"
