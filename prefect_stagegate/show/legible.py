"""Make names and messages from data and servers safe to show."""

from __future__ import annotations

import unicodedata

_ACTING = {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}
_TURNING = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A)), "\u200e", "\u200f", "\u061c"}

KNOWN = 4096
"""Characters whose escapes are kept, at most."""


def legible_text(text: str) -> str:
    r"""Replace characters that act instead of showing by escapes; line ends and tabs stay.

    Replaced are control characters, which terminals obey and XML forbids; lone surrogates, which stand for bytes that
    aren't UTF-8; and marks that turn the direction of writing or break a line.

    >>> legible_text("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    if text.isascii() and text.isprintable():
        return text
    return text.translate(_ESCAPES)


def one_line(text: str) -> str:
    """Join the lines of a text by spaces."""
    return " ".join(text.split())


def shortened(text: str, longest: int) -> str:
    """Cut a text that has more characters, and show that it was cut.

    >>> shortened("abcdef", 4)
    'abc…'
    """
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def short_line(text: str) -> str:
    """A text in one line of 300 characters at most, as records of plugins keep reasons."""
    return shortened(one_line(text), 300)


def spans(text: str) -> list[tuple[str, bool]]:
    """Split a sentence at its backticks; each part comes with whether it stood between them.

    >>> spans("run `stagegate gc`, or"), spans("a ` alone")
    ([('run ', False), ('stagegate gc', True), (', or', False)], [('a ` alone', False)])
    """
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return [(text, False)]
    return [(part, number % 2 == 1) for number, part in enumerate(parts) if part]


def time_text(stamp: str) -> str:
    """A recorded time for people, to the minute.

    >>> time_text("2026-03-01T03:00:00.000000Z")
    '2026-03-01 03:00 UTC'
    """
    return f"{stamp[:10]} {stamp[11:16]} UTC" if stamp.endswith("Z") else stamp


class _Escapes(dict[int, str]):
    """The escape of each character that acts, and every other character as it is."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        shown = character if _shows(character) else character.encode("unicode_escape").decode()
        if len(self) < KNOWN:
            self[code] = shown
        return shown


_ESCAPES = _Escapes()


def _shows(character: str) -> bool:
    if character in "\n\t":
        return True
    return character not in _TURNING and unicodedata.category(character) not in _ACTING
