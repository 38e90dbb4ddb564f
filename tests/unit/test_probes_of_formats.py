"""Each probe on good files and on files with a planted defect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.validations.files.facts import DECODERS, UnreadableFile, decoder


def problem(probe: str, path: Path, **settings: Any) -> str:
    """The defect that a probe finds; empty when the file passes."""
    try:
        decoder(probe)(path, **settings)
    except UnreadableFile as error:
        return error.problem if error.fix else "has no fix"
    return ""


@pytest.mark.parametrize("probe", sorted(DECODERS))
def test_every_probe_refuses_an_empty_file(tmp_path: Path, probe: str) -> None:
    (tmp_path / "empty").touch()
    assert "empty (0 bytes)" in problem(probe, tmp_path / "empty")


# ── text ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": 1}\n[]\nnull\n"\xc3\xbc"', ""),
        (b'{"a": 1}\n{"a": }\n', "line 2 is no JSON value: Expecting value at column 7"),
        (b"1\n\n2\n", "line 2 is no JSON value"),
        (b"1\nNaN\n", "line 2 is no JSON value: NaN is no number of JSON"),
        (b'1\n"\xff"\n', "line 2 is no UTF-8"),
        (b"[" * 100_000, "line 1 is no JSON value"),
    ],
)
def test_jsonl_names_the_broken_line(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    answer = problem("jsonl", tmp_path / "a.jsonl")
    assert reason in answer
    assert bool(reason) == bool(answer)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("grün\n".encode() * 300_000, ""),
        (b"a" * 2_000_000 + b"\xff", "no UTF-8 near byte"),
        (b"a" * 2_000_000 + b"\0", "NUL at byte 2,000,000"),
        ("ü".encode()[:1], "no UTF-8 near byte"),
    ],
)
def test_text_must_be_utf8_without_nul(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    answer = problem("text", tmp_path / "a.txt")
    assert reason in answer
    assert bool(reason) == bool(answer)
