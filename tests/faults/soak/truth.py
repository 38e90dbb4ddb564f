"""What each object holds. An object says so in its first line, so anybody can tell a right file from a wrong one.

    soak <path> <revision> <size> LF, and then BLAKE3's extended output for that line, up to `size` bytes

A `verdict` is empty when its delivery is bad: the gate must refuse every version that holds an empty one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from blake3 import blake3

FOLDERS = 6
SMALL, LARGE = 24, 3
"""Objects of each kind in a folder."""
VERDICT = "verdict"


def content(path: str, revision: int, size: int) -> bytes:
    """The bytes of one revision of an object; its first line takes 60 bytes at most."""
    line = f"soak {path} {revision} {size}\n".encode()
    return line + blake3(line).digest(length=size - len(line))


def problem(path: str, data: bytes) -> str:
    """What is wrong with a file of a view; empty when some delivery held exactly these bytes at this path."""
    if not data and path.endswith(VERDICT):
        return ""
    words = data.partition(b"\n")[0].split(b" ")
    if len(words) != 4 or words[:2] != [b"soak", path.encode()] or not (words[2] + words[3]).isdigit():
        return f"begins with {data[:60]!r}"
    revision, size = int(words[2]), int(words[3])
    if size != len(data):
        return f"has {len(data)} bytes of {size}"
    return "" if content(path, revision, size) == data else f"differs from revision {revision} of it"


@dataclass
class Source:
    """What the source holds, and what it is given next."""

    random: Random
    held: dict[str, bytes] = field(default_factory=dict)
    """By path."""
    revision: int = 0

    def first(self) -> dict[str, bytes]:
        """The first delivery: everything."""
        sizes = {
            f"{folder}/{kind}-{number:02}.bin": self.random.randrange(*bounds)
            for folder in range(FOLDERS)
            for kind, count, bounds in (("small", SMALL, (100, 20_000)), ("large", LARGE, (150_000, 500_000)))
            for number in range(count)
        }
        verdicts = {f"{folder}/{VERDICT}": 100 for folder in range(FOLDERS)}
        self.held = {path: content(path, 0, size) for path, size in (sizes | verdicts).items()}
        return dict(self.held)

    def next(self) -> dict[str, bytes]:
        """A later delivery: a few objects of one folder, bad in one case of four."""
        self.revision += 1
        folder = f"{self.random.randrange(FOLDERS)}/"
        paths = [path for path in self.held if path.startswith(folder) and not path.endswith(VERDICT)]
        chosen = self.random.sample(paths, self.random.randint(1, 9))
        changed = {path: content(path, self.revision, len(self.held[path])) for path in chosen}
        bad = self.random.random() < 0.25
        changed[folder + VERDICT] = b"" if bad else content(folder + VERDICT, self.revision, 100)
        self.held |= changed
        return changed


@dataclass
class Rot:
    """What was spoilt on purpose: only that excuses a wrong byte."""

    inodes: dict[tuple[str, int], str] = field(default_factory=dict)
    """Node and inode → the blob's name."""

    def excuses(self, node: str, inode: int, blob: str = "") -> bool:
        """Whether a file is one of those, and the blob that it should be."""
        return blob in ("", self.inodes.get((node, inode))) and (node, inode) in self.inodes

    @property
    def blobs(self) -> frozenset[str]:
        """The names of all of them."""
        return frozenset(self.inodes.values())


def rows_of(held: dict[str, bytes], folders: list[int]) -> list[tuple[str, int, str]]:
    """The version that a dataset of these folders is, if it is staged now."""
    wanted = tuple(f"{folder}/" for folder in folders)
    return [
        (path, len(data), f"blake3:{blake3(data).hexdigest()}")
        for path, data in held.items()
        if path.startswith(wanted)
    ]
