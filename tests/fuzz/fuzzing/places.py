"""A catalog and a cache as staging, checking and promoting left them, and what may be changed of them on disk."""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fuzzing.mutations import mutate
from prefect_stagegate.gate import known_checks
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.upkeep.maintain import pin
from prefect_stagegate.model import Address, Entry, Identity
from prefect_stagegate.spec import load_spec
from prefect_stagegate.workspace import Workspace
from tests.support.versions import read_manifest

ADA = Identity("ada", "declared")
PLACES = ("cache", "catalog")
WAYS = (*("bytes",) * 3, "empty", "zeros", "swap", "copy", "gone", "folder", "link", "pipe", "extra")
"""How a file is damaged."""
LEFT_OUT = ("CACHEDIR.TAG",)
"""It is for backups."""


@dataclass
class Truth:
    """What was staged and accepted."""

    folder: Path
    entries: dict[str, list[Entry]]
    """Of each version of `things`, by its digest."""
    accepted: frozenset[str]
    """The versions that the gate of `pilot` let in."""
    refused: str
    """The version that it refuses."""


def node(folder: Path) -> Workspace:
    """Cache and catalog of a place."""
    return open_workspace(folder / "cache", folder / "catalog", identity=ADA)


def build(folder: Path) -> Truth:
    """Stage, check and promote for real: a version that was let in, its successor, and one that is refused."""
    versions = [_deliver(folder, text) for text in ("one\n", "one\ntwo\n")]
    refused = _stage(folder, "things", "three\n", runbook="")
    assert not check(node(folder), Address("things"), "pilot").accepted
    _stage(folder, "planes", "plane\n")
    pin(node(folder), Address("things", versions[0]))
    workspace = node(folder)
    entries = {
        digest: list(read_manifest(workspace.catalog, "things", digest).entries()) for digest in (*versions, refused)
    }
    return Truth(folder, entries, frozenset(versions), refused)


def _deliver(folder: Path, text: str) -> str:
    digest = _stage(folder, "things", text)
    assert check(node(folder), Address("things"), "pilot").accepted
    assert promote(node(folder), Address("things"), "pilot").digest == digest
    return digest


def _stage(folder: Path, dataset: str, text: str, *, runbook: str = "https://wiki.example.org/") -> str:
    source = folder / "sources" / dataset
    (source / "more").mkdir(parents=True, exist_ok=True)
    (source / "data.csv").write_text(text)
    (source / "more/é b.csv").write_text(text * 50)
    (source / "empty").touch()
    spec = {
        "stagegate": 1,
        "dataset": dataset,
        "license": "CC0-1.0",
        **({"runbook": runbook} if runbook else {}),  # a licence may be changed to one that only warns
        "owners": dict.fromkeys(("data", "ai", "infra", "governance"), "team@example.org"),
        "sources": [{"url": str(source)}],
        "gates": {"pilot": {"require": ["license", "owner", "nonempty", "runbook"]}},
    }
    return stage(node(folder), load_spec(spec, known_checks=known_checks())).digest


def damage(draw: random.Random, folder: Path) -> list[str]:
    """Change one to three files of a place; says which, and how."""
    return [_damage_one(draw, folder) for _ in range(draw.choice((1, 1, 2, 3)))]


def _damage_one(draw: random.Random, folder: Path) -> str:
    files = sorted(_files(folder))
    path = draw.choice(files)
    name = str(path.relative_to(folder))
    way = draw.choice(WAYS)
    path.parent.chmod(0o755)
    other = draw.choice([finding for finding in files if finding.suffix == path.suffix])
    data = path.read_bytes()
    if way == "bytes":
        _write(path, mutate(draw, data))
    elif way == "empty":
        _write(path, b"")
    elif way == "zeros":
        _write(path, b"\0" * len(data))
    elif way == "swap":
        name += f" with {other.relative_to(folder)}"
        _write(path, other.read_bytes())
        _write(other, data)
    elif way == "copy":
        name += f" from {other.relative_to(folder)}"
        _write(path, other.read_bytes())
    elif way == "extra":
        extra = _extra(draw, path)
        name = f"{os.fsencode(extra)!r}"
        _write(extra, draw.choice((data, b"", b"\xff", mutate(draw, data))))
    else:
        _replace(draw, path, way, str(other))
    return f"{way} {name}"


def _replace(draw: random.Random, path: Path, way: str, other: str) -> None:
    """Put something else in a file's place. A link never leads out of the place: this may run as root."""
    path.unlink()
    if way == "folder":
        path.mkdir()
    elif way == "link":
        path.symlink_to(draw.choice(("nowhere", path.name, other)))
    elif way == "pipe" and "views" not in path.parts:  # who reads a version by its path opens what stands there
        os.mkfifo(path)


def _files(folder: Path) -> Iterator[Path]:
    """The regular files that may be damaged: what an earlier damage made a link or a pipe of is left alone."""
    for subfolder in PLACES:
        for inside, _, names in os.walk(folder / subfolder):
            paths = (Path(inside, name) for name in names if name not in LEFT_OUT)
            yield from (path for path in paths if stat.S_ISREG(path.lstat().st_mode))


def _extra(draw: random.Random, path: Path) -> Path:
    """A name beside a record: what editors, copies and file managers leave, or the next record's."""
    names = (
        f"{path.name}.bak", f"{path.name}~", f".{path.name}.swp", ".DS_Store", "notes.txt", "00000009.json", "f" * 64,
        "f" * 32, "f" * 64 + ".parquet", "odd\udcff name", " ", "-x", "latest", "planes",
    )  # fmt: skip
    return path.with_name(draw.choice(names))


def _write(path: Path, data: bytes) -> None:
    """Put other bytes in a file's place; a blob and the views that link to it stay one file. Follows no link."""
    if os.path.lexists(path):
        if not stat.S_ISREG(path.lstat().st_mode):
            return  # an earlier damage made it a folder, a link or a pipe
        path.chmod(0o644)
    with suppress(OSError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)


def copy(source: Path, target: Path) -> None:
    """A place again, with its links between files; what was there before goes."""
    for folder, _, _ in os.walk(target):
        Path(folder).chmod(0o755)
    shutil.rmtree(target, ignore_errors=True)
    known: dict[int, Path] = {}
    for folder, _, names in os.walk(source):
        here = target / Path(folder).relative_to(source)
        here.mkdir(parents=True, exist_ok=True)
        for name in names:
            path = Path(folder, name)
            status = path.lstat()
            if first := known.get(status.st_ino):
                os.link(first, here / name)
            else:
                shutil.copy2(path, here / name)
                known[status.st_ino] = here / name
