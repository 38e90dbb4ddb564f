"""Markdown in which what came from data and servers shows as it is, and does nothing."""

from __future__ import annotations

import re
from collections.abc import Collection

from prefect_stagegate.report.legible import one_line, spans
from prefect_stagegate.report.model import is_command

_ACTIVE = re.compile(r"([\\`*\[\]<>|&~#!$])|(?<![^\W_])(_)|(_)(?![^\W_])")
_TICKS = re.compile(r"`+")
_ADDRESS = re.compile(r"(https?|file)://[^\s<>()\\`\"|]+")


def plain(text: str) -> str:
    """Text that shows as it is, in one line, whatever it holds."""
    return _escaped(one_line(text))


def code(text: str) -> str:
    """Text in a code span that no backtick in it can end; a table needs its pipes escaped even there."""
    text = one_line(text)
    if not text:
        return ""
    fence = "`" * (max(map(len, _TICKS.findall(text)), default=0) + 1)
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{padding}{text}{padding}{fence}".replace("|", "\\|")


def step(text: str, headed: Collection[str] = ()) -> str:
    """A fix or a step: a command as one, a sentence with its backticks.

    Args:
        text: The fix or step.
        headed: Words that have a heading on the same page; between backticks they are links to it.
    """
    if is_command(text):
        return code(text)
    parts = spans(one_line(text))
    return "".join(_ticked(part, headed) if ticked else _escaped(part) for part, ticked in parts)


def _ticked(part: str, headed: Collection[str]) -> str:
    return f"[{code(part)}](#{part})" if part in headed else code(part)


def link(words: str, address: str) -> str:
    """A link where the address is one that a browser may follow, else the words and the address as text."""
    return f"[{plain(words)}]({address})" if _ADDRESS.fullmatch(address) else f"{plain(words)}: {plain(address)}"


def _escaped(text: str) -> str:
    return _ACTIVE.sub(lambda found: "\\" + found[0], text)
