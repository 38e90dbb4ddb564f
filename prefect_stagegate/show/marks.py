"""Escape text from data and servers for Markdown, so that it shows as it is."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from prefect_stagegate.show.legible import one_line, spans
from prefect_stagegate.show.next_steps import is_command

# An underscore within a word marks nothing in Markdown, and names that keep theirs unescaped can be copied.
_ACTIVE = re.compile(r"([\\`*\[\]<>|&~#!$])|(?<![^\W_])(_)|(_)(?![^\W_])")
_TICKS = re.compile(r"`+")
_ADDRESS = re.compile(r"https?://[^\s<>()\\`\"|]+")


def plain(text: str) -> str:
    """Escape a text to one line without markup."""
    return _escaped(one_line(text))


def code(text: str) -> str:
    """Put a text into a code span."""
    text = one_line(text)
    if not text:
        return ""
    # The fence is longer than any run of backticks inside.
    fence = "`" * (max(map(len, _TICKS.findall(text)), default=0) + 1)
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def step(text: str) -> str:
    """Format a fix or a step: a command as code, a sentence with its backticks."""
    if is_command(text):
        return code(text)
    return "".join(code(part) if ticked else _escaped(part) for part, ticked in spans(one_line(text)))


def link(words: str, address: str) -> str:
    """A link when a browser may follow the address, else the words and the address as text."""
    return f"[{plain(words)}]({address})" if _ADDRESS.fullmatch(address) else f"{plain(words)}: {plain(address)}"


def named(head: Sequence[str], texts: Sequence[str]) -> str:
    """The texts with their names before them; empty ones are left out."""
    return ", ".join(f"{name.lower()} {text}" for name, text in zip(head, texts, strict=True) if text)


def folded(title: str, texts: Sequence[str]) -> list[str]:
    """A list of texts that opens at a click, if there are any. As HTML: Prefect's pages fold no Markdown."""
    items = "".join(f"<li>{html.escape(one_line(text))}</li>" for text in texts)
    return [f"<details><summary>{html.escape(title)}</summary><ul>{items}</ul></details>"] if texts else []


def _escaped(text: str) -> str:
    return _ACTIVE.sub(lambda match: "\\" + match[0], text)
