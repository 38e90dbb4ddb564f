"""The probe of tar shards, as WebDataset reads them: samples are members that share their name up to the first dot."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from prefect_stagegate.units import count_text
from prefect_stagegate.validations.files.facts import Facts, UnreadableFile, first_line, nonempty

MOST_MEMBERS = 1_000_000
MOST_SHOWN = 80
"""Characters of a member's name that a message shows."""
MOST_EXTENSIONS = 100
"""Members of one sample."""
END = bytes(tarfile.BLOCKSIZE)
"""The block of zeros that ends an archive."""


def tar(path: Path) -> Facts:
    """A WebDataset shard: an uncompressed tar of 1,000,000 files at most, whose samples all have the same extensions.

    Refused are members that climb out of the shard, special members such as links, names that come twice, samples that
    come back after others, and an archive without its end. The members' bytes are not read.
    """
    nonempty(path)
    expected: list[str] = []
    for key, extensions in _samples(path):
        expected = expected or extensions
        if extensions != expected:
            raise UnreadableFile(
                f"sample {_shown(key)} has {_listed(extensions)}, and the first has {_listed(expected)}"
            )
    if not expected:
        raise UnreadableFile("the archive has no members")
    return Facts()


def _samples(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Each sample's key with the sorted extensions of its members."""
    # Digests instead of keys bound the memory, since names may be long.
    done: set[bytes] = set()
    key, extensions = "", list[str]()
    for name in _names(path):
        next_key, extension = _key_and_extension(name)
        if next_key != key and extensions:
            done.add(_digest(key))
            yield key, sorted(extensions)
            extensions = []
        if extension in extensions or _digest(next_key) in done:
            raise UnreadableFile(f"member {_shown(name)} comes twice, or apart from the rest of its sample")
        if len(extensions) == MOST_EXTENSIONS:
            raise UnreadableFile(f"sample {_shown(next_key)} has more than {count_text(MOST_EXTENSIONS, 'member')}")
        key = next_key
        extensions.append(extension)
    if extensions:
        yield key, sorted(extensions)


def _names(path: Path) -> Iterator[str]:
    """The names of all members that are files, once each member is proved harmless."""
    with path.open("rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for number in range(MOST_MEMBERS + 1):
                    if (member := archive.next()) is None:
                        break
                    if number == MOST_MEMBERS:
                        raise UnreadableFile(f"it has more than {count_text(MOST_MEMBERS, 'member')}")
                    archive.members.clear()  # type: ignore[attr-defined] # they grow with the archive
                    _check_member(member)
                    if not member.isdir():
                        yield member.name
                end = archive.offset
        except (tarfile.TarError, ValueError, EOFError) as error:
            raise UnreadableFile(f"its index can't be read as an uncompressed tar: {first_line(error)}") from error
        # tarfile takes a damaged header for the end of the archive.
        file.seek(end)
        if file.read(len(END)) != END:
            raise UnreadableFile(f"truncated or damaged: no archive's end at byte {end:,}")


def _check_member(member: tarfile.TarInfo) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\0" in member.name:
        raise UnreadableFile(f"member {_shown(member.name)} would be written outside of the shard's folder")
    if not (member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)):
        raise UnreadableFile(f"member {_shown(member.name)} is a link, a device or another special file")


def _key_and_extension(name: str) -> tuple[str, str]:
    """Split a name as WebDataset does, at the first dot of its last part.

    >>> _key_and_extension("train.v1/0001.left.jpg")
    ('train.v1/0001', 'left.jpg')
    """
    folder, slash, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    return f"{folder}{slash}{stem}", extension.lower()


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _shown(name: str) -> str:
    return ascii(name[:MOST_SHOWN])


def _listed(extensions: list[str]) -> str:
    return ", ".join(ascii(extension[:MOST_SHOWN]) for extension in extensions[:5])
