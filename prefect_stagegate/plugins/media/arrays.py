"""The probe of NumPy's arrays. It unpickles nothing."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from prefect_stagegate.units import count_text
from prefect_stagegate.validations.files.facts import Facts, UnreadableFile, first_line, nonempty

BLOCK = 1 << 20
MOST_ARRAYS = 100_000
"""Members of an .npz file."""

MOST_DIMENSIONS = 64
LARGEST = 2**63 - 1
"""The most that one dimension can have."""
MOST_SHOWN = 80
"""Characters of a shape that a message shows."""


def numpy(path: Path) -> Facts:
    """An `.npy` or `.npz` file without pickled objects, whose arrays have the sizes that their headers say.

    The members of an `.npz` file are read to their end.
    """
    nonempty(path)
    try:
        with path.open("rb") as file:
            is_archive = file.read(2) == b"PK"
            file.seek(0)
            if is_archive:
                _check_archive(file)
            else:
                _check_array(file, path.stat().st_size)
    except UnreadableFile:
        raise
    except (ValueError, TypeError, SyntaxError, EOFError, RecursionError, RuntimeError) as error:
        raise UnreadableFile(f"it can't be read as NumPy's: {first_line(error)}") from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise UnreadableFile(f"its archive can't be read: {first_line(error)}") from error
    return Facts()


def _check_archive(file: IO[bytes]) -> None:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if not 0 < len(members) <= MOST_ARRAYS:
            raise UnreadableFile(f"it has {count_text(len(members), 'array')}, and may have 1 to {MOST_ARRAYS:,}")
        if len({member.filename for member in members}) < len(members):
            raise UnreadableFile("two of its arrays have one name")
        for member in members:
            with archive.open(member) as data:
                _check_array(data, member.file_size)
                for _ in _blocks(data):
                    pass  # zipfile compares the checksum at the end


def _check_array(file: IO[bytes], size: int) -> None:
    """Compare an array's header with its size in bytes; leaves `file` after the header."""
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    # Version 3 differs from 2 in the encoding of fields' names only, which change no size.
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, kind = read(file)
    if kind.hasobject:
        raise UnreadableFile("it holds pickled objects, which may run code when they are loaded")
    if len(shape) > MOST_DIMENSIONS or any(isinstance(side, bool) or not 0 <= side <= LARGEST for side in shape):
        raise UnreadableFile(f"no array can have the shape {str(shape)[:MOST_SHOWN]}")
    expected = math.prod(shape) * kind.itemsize
    if (there := size - file.tell()) != expected:
        raise UnreadableFile(f"its header says {count_text(expected, 'byte')} of data, and {there:,} are there")


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block
