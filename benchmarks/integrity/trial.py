"""One corruption and one tool: was it noticed before a reader saw wrong bytes?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from benchmarks.integrity.damage import ON_DISK, Case, sha256
from benchmarks.integrity.served import Armed, Server
from benchmarks.integrity.tools import Client, Fetched, Tool


class Verdict(StrEnum):
    """What became of a corruption."""

    REFUSED = "refused"
    """The tool ended with an error."""
    RIGHT = "right"
    """It ended well, and the file is right: it had asked again."""
    LET_THROUGH = "let through"
    """It ended well, and the file is wrong."""


@dataclass(frozen=True, slots=True)
class Result:
    """A case's verdicts."""

    case: Case
    alone: Verdict
    """Of the download, or of a reader who opens the file."""
    verified: Verdict
    """After the tool's own verification; the same where it has none."""
    message: str = ""
    """What the tool said."""


class NotHit(AssertionError):
    """A case damaged nothing: the tool read otherwise than the harness expects, and the count would lie."""


def on_the_way(tool: Tool, client: Client, server: Server, case: Case, folder: Path) -> Result:
    """Download an object while one response is damaged."""
    key, other = server.victim(case)
    data = server.objects[key]
    client.prepare(key)
    armed = Armed(case, len(data), other, server.paths[key])
    with fresh(folder) as out:
        server.proxy.break_with(armed)
        fetched = client.fetch(key, out)
        server.proxy.break_with(lambda _: None)
        if not armed.hit:
            raise NotHit(f"{tool.name} never read {key} whole, nor the range to damage: {fetched.error}")
        alone = verified = verdict(fetched, data)
        if alone is Verdict.LET_THROUGH and tool.compares == "contents":
            verified = verdict(fetched._replace(error=client.verify(key, out)), data)
        return Result(case, alone, verified, fetched.error)


def on_disk(tool: Tool, client: Client, server: Server, case: Case, folder: Path) -> Result:
    """Download an object whole, damage the file as a disk would, without a trace in its times, and look again."""
    key, other = server.victim(case)
    data = server.objects[key]
    client.prepare(key)
    with fresh(folder) as out:
        fetched = client.fetch(key, out)
        if verdict(fetched, data) is not Verdict.RIGHT:
            raise AssertionError(f"{tool.name} failed without any damage: {fetched.error}")
        if tool.verification and (error := client.verify(key, out)):
            raise AssertionError(f"{tool.name} finds damage where none is: {error}")
        spoil(fetched.file, ON_DISK[case.kind](data, other, case.rng()))
        alone = verified = verdict(fetched, data)
        if tool.verification:
            verified = verdict(fetched._replace(error=client.verify(key, out)), data)
        return Result(case, alone, verified, fetched.error)


def verdict(fetched: Fetched, data: bytes) -> Verdict:
    """What a reader gets to see."""
    if fetched.error:
        return Verdict.REFUSED
    right = fetched.file.is_file() and sha256(fetched.file.read_bytes()) == sha256(data)
    return Verdict.RIGHT if right else Verdict.LET_THROUGH


def spoil(file: Path, data: bytes) -> None:
    """Change what a file holds in place, whatever its permissions; its times stay."""
    before = file.stat()
    file.chmod(0o600)
    with file.open("r+b") as opened:
        opened.write(data)
        opened.truncate(len(data))
    file.chmod(before.st_mode)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@contextmanager
def fresh(folder: Path) -> Iterator[Path]:
    """An empty folder, removed at the end."""
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
