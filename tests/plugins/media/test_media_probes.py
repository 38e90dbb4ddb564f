"""Each probe of images, sound, archives and arrays, on good files and on files with a planted defect."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prefect_stagegate.validations.files.facts import UnreadableFile, decoder


def problem(probe: str, path: Path, **settings: Any) -> str:
    """The defect that a probe finds; empty when the file passes."""
    try:
        decoder(probe)(path, **settings)
    except UnreadableFile as error:
        return error.problem if error.fix else "has no fix"
    return ""


def picture(mode: str = "RGB", size: tuple[int, int] = (48, 32), form: str = "PNG") -> bytes:
    noise = Image.effect_noise(size, 60).convert("RGB").convert(mode)
    buffer = io.BytesIO()
    noise.save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000"])
def test_image_passes_whole_and_fails_truncated(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(picture(form=form))
    assert problem("image", path) == ""
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert "can't be decoded" in problem("image", path)


def test_png_without_its_last_bytes_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(picture(form="PNG")[:-20])  # all pixels are there
    assert "can't be decoded" in problem("image", path)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"mode": "RGB"}, "its mode is L, and the contract says RGB"),
        ({"min_size": [64, 1]}, "it is 48 pixels wide, and the contract says at least 64"),
        ({"max_size": [48, 16]}, "it is 32 pixels high, and the contract says at most 16"),
        ({"mode": "L", "min_size": [48, 32], "max_size": [48, 32]}, ""),
    ],
)
def test_image_of_another_kind_is_refused(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    (tmp_path / "a.png").write_bytes(picture("L"))
    assert problem("image", tmp_path / "a.png", **settings) == reason


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 60_000])
def test_image_bomb_is_refused_undecoded(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(side, side))
    assert "too many pixels to decode safely" in problem("image", tmp_path / "bomb.png")


def test_postscript_is_no_image(tmp_path: Path) -> None:
    """Pillow would start Ghostscript to decode it."""
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    assert "no image of a known format" in problem("image", tmp_path / "a.png")


@given(st.binary(max_size=200), st.integers(0, 2000))
def test_damaged_image_is_a_defect_and_no_crash(
    tmp_path_factory: pytest.TempPathFactory, patch: bytes, at: int
) -> None:
    data = bytearray(picture(form="GIF"))
    data[at : at + len(patch)] = patch
    path = tmp_path_factory.getbasetemp() / "damaged.gif"
    path.write_bytes(data)
    assert isinstance(problem("image", path), str)


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
def test_sound_passes_whole_and_fails_truncated(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a"
    noise = np.random.default_rng(0).standard_normal((44_100, 2)) * 0.1
    soundfile.write(path, noise, 44_100, format=form)
    assert problem("audio", path) == ""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert problem("audio", path)


def test_sound_without_frames_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((0, 1)), 44_100)
    assert "0 of 0 frames decode" in problem("audio", tmp_path / "a.wav")


def shard(*members: str | tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for item in members:
            member = tarfile.TarInfo(item) if isinstance(item, str) else item
            member.size = 3 if member.isreg() else 0
            archive.addfile(member, io.BytesIO(b"abc"))
    return buffer.getvalue()


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo("0.jpg")
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (("a/0.jpg", "a/0.cls", "a/1.cls", "a/1.jpg"), ""),
        (("0.jpg", "0.cls", "1.jpg"), "sample '1' has 'jpg', and the first has 'cls', 'jpg'"),
        (("0.jpg", "0.jpg"), "'0.jpg' comes twice"),
        (("0.jpg", "1.jpg", "0.jpg"), "'0.jpg' comes twice, or apart"),
        (("../0.jpg",), "'../0.jpg' would be written outside"),
        (("/etc/0.jpg",), "'/etc/0.jpg' would be written outside"),
        ((special(tarfile.SYMTYPE, "/etc/passwd"),), "is a link, a device"),
        ((special(tarfile.LNKTYPE, "../x"),), "is a link, a device"),
        ((special(tarfile.CHRTYPE),), "is a link, a device"),
        ((), "no members"),
    ],
)
def test_shard_is_refused_for_its_members(tmp_path: Path, members: tuple[Any, ...], reason: str) -> None:
    (tmp_path / "a.tar").write_bytes(shard(*members))
    answer = problem("tar", tmp_path / "a.tar")
    assert reason in answer
    assert bool(reason) == bool(answer)


@pytest.mark.parametrize("length", [100, 512, 700, 1024, 1536, 2048])
def test_truncated_shard_is_refused(tmp_path: Path, length: int) -> None:
    (tmp_path / "a.tar").write_bytes(shard("0.jpg", "1.jpg")[:length])
    assert problem("tar", tmp_path / "a.tar")


def test_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    data = bytearray(shard("0.jpg", "1.jpg"))
    data[1024:1100] = b"\xff" * 76
    (tmp_path / "a.tar").write_bytes(data)
    assert "no archive's end at byte 1,024" in problem("tar", tmp_path / "a.tar")


def tensors(header: Any, data: int = 24) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def tensor(begin: int, end: int, kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": [(end - begin) // 4], "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tensors({"__metadata__": {"format": "pt"}, "a": tensor(0, 8), "b": tensor(8, 24)}), ""),
        (tensors({"a": tensor(0, 16), "b": tensor(8, 24)}), "invalid offset for tensor `b`"),
        (tensors({"a": tensor(0, 8), "b": tensor(12, 24)}), "invalid offset for tensor `b`"),
        (tensors({"a": tensor(0, 8)}), "file not fully covered"),
        (tensors({"a": tensor(0, 24, "F64")}), "invalid shape, data type, or offset"),
        (tensors({"a": tensor(0, 24, "OBJECT")}), "unknown variant `OBJECT`"),
        (tensors({"a": tensor(0, -8)}), "doesn't fit"),
        (tensors({"a": 3}), "doesn't fit"),
        (tensors([]), "doesn't fit"),
        (tensors(b'{"a": 1, "a": 1}'), "doesn't fit"),
        (tensors(b"[" * 100_000), "doesn't fit"),
        (struct.pack("<Q", 2**63) + b"{}", "header too large"),
        (b"abc", "header too small"),
    ],
)
def test_safetensors_header_must_fit_its_file(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a").write_bytes(content)
    answer = problem("safetensors", tmp_path / "a")
    assert reason in answer
    assert bool(reason) == bool(answer)


@given(st.lists(st.integers(0, 40), max_size=8), st.randoms())
def test_tensors_without_gaps_pass_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], chance: Any
) -> None:
    ends = [sum(lengths[: number + 1]) * 4 for number in range(len(lengths))]
    header = {
        f"t{end}-{n}": tensor(end - size * 4, end) for n, (end, size) in enumerate(zip(ends, lengths, strict=True))
    }
    names = list(header)
    chance.shuffle(names)
    path = tmp_path_factory.getbasetemp() / "a.safetensors"
    path.write_bytes(tensors({name: header[name] for name in names}, sum(lengths) * 4))
    assert problem("safetensors", path) == ""
    path.write_bytes(path.read_bytes() + b"x")
    assert "file not fully covered" in problem("safetensors", path)


def array(values: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, **options)
    return buffer.getvalue()


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def array_of_shape(*shape: int) -> bytes:
    """An array of 64 bytes whose header names a shape that `numpy.save` never writes."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return buffer.getvalue() + bytes(64)


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: archive(a=data)], ids=["npy", "npz"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (array(np.arange(6).reshape(2, 3)), ""),
        (array(np.zeros(3, [("x", "i4"), ("ü", "f8")])), ""),
        (array(np.arange(1000))[:-8], "8,000 bytes of data, and 7,992 are there"),
        (array(np.arange(3)) + b"x", "24 bytes of data, and 25 are there"),
        (array(np.array([{}], dtype=object), allow_pickle=True), "pickled objects"),
        (b"\x80\x04K\x01.", "can't be read as NumPy's"),
        (array_of_shape(-2, -4), "no array can have the shape"),
        (array_of_shape(True, 8), "no array can have the shape"),
        (array_of_shape(10**25, 0), "no array can have the shape"),
        (array_of_shape(8, *[1] * 64), "no array can have the shape"),
        (array(np.arange(3))[:20], "can't be read as NumPy's"),
    ],
)
def test_array_must_have_the_size_of_its_header(
    tmp_path: Path, content: bytes, reason: str, wrap: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "a").write_bytes(wrap(content))
    answer = problem("numpy", tmp_path / "a")
    assert reason in answer
    assert bool(reason) == bool(answer)


def test_damaged_npz_is_refused(tmp_path: Path) -> None:
    data = bytearray(archive(a=array(np.arange(1000))))
    data[1000] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(data)
    assert "Bad CRC-32" in problem("numpy", tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes(data[:-30])
    assert "archive can't be read" in problem("numpy", tmp_path / "a.npz")


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
