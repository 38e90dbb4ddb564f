"""Probes of files that hold arrays: NumPy's and safetensors. Neither unpickles anything."""

from __future__ import annotations

import json
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from prefect_stagegate.units import count_text
from prefect_stagegate.validations.files.facts import Facts, UnreadableFile, first_line, nonempty

LENGTH = struct.Struct("<Q")
"""How a safetensors file begins: the header's length."""
MOST_HEADER = 100_000_000
"""Bytes of a safetensors header, as the format's own library bounds it."""
MOST_DIMENSIONS = 64
BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}
"""Bits of an element, by safetensors' name of its type."""
BLOCK = 1 << 20
MOST_ARRAYS = 100_000
"""Members of an .npz file."""


def safetensors(path: Path) -> Facts:
    """The header is JSON of 100 MB at most, and its tensors fill the rest of the file without overlap or hole."""
    nonempty(path)
    with path.open("rb") as file:
        size = path.stat().st_size - LENGTH.size
        start = file.read(LENGTH.size)
        length = LENGTH.unpack(start)[0] if len(start) == LENGTH.size else MOST_HEADER + 1
        if length > min(MOST_HEADER, size):
            raise UnreadableFile(
                "truncated, or no safetensors file: the header's length goes beyond the file or 100 MB"
            )
        header = _header(file.read(length))
    _check_spans([_span(name, tensor) for name, tensor in header.items()], size - length)
    return Facts()


def _header(data: bytes) -> dict[str, Any]:
    """The tensors by name, without the metadata."""
    try:
        header = json.loads(data.decode(), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise UnreadableFile(f"its header is no JSON: {first_line(error)}") from error
    if not isinstance(header, dict):
        raise UnreadableFile("its header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UnreadableFile("its `__metadata__` is no mapping of texts")
    return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(values := dict(pairs)) < len(pairs):
        raise ValueError("a key comes twice")
    return values


def _span(name: str, tensor: Any) -> tuple[int, int]:
    """The first byte of a tensor and the one after its last, which must agree with its type and shape."""
    tensor = tensor if isinstance(tensor, dict) else {}
    shape, span, bits = tensor.get("shape"), tensor.get("data_offsets"), BITS.get(str(tensor.get("dtype")))
    if bits is None or not _counts(shape) or not _counts(span) or len(shape) > MOST_DIMENSIONS or len(span) != 2:  # noqa: PLR2004
        raise UnreadableFile(f"tensor {name[:80]!a} has no known type, shape and offsets")
    begin, end = span
    if (end - begin) * 8 != math.prod(shape) * bits:
        raise UnreadableFile(f"tensor {name[:80]!a} has offsets that don't fit its type and shape")
    return begin, end


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_spans(spans: Sequence[tuple[int, int]], size: int) -> None:
    end = 0
    for begin, stop in sorted(spans):
        if begin != end:
            kind = "overlap" if begin < end else "leave a hole"
            raise UnreadableFile(f"its tensors {kind} at byte {begin:,} of the data")
        end = stop
    if end != size:
        raise UnreadableFile(f"its tensors take {count_text(end, 'byte')}, and the file has {size:,} for them")


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
    expected = math.prod(shape) * kind.itemsize
    if (there := size - file.tell()) != expected:
        raise UnreadableFile(f"its header says {count_text(expected, 'byte')} of data, and {there:,} are there")


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block
