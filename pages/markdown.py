"""Markdown of the generated pages: code, links, and texts without accidental markup."""

from __future__ import annotations

import re
from collections.abc import Iterable

NONE = "none"
"""What a table says where a key or setting has no default."""


def page(title: str, source: str, *blocks: str) -> str:
    """A whole page: the note that it is generated, its title, and its blocks."""
    note = f"<!-- Generated from {source} by pages/generate.py: don't edit it. `make reference` writes it. -->"
    return "\n\n".join([note, f"# {title}", *filter(None, blocks)]) + "\n"


def prose(text: str) -> str:
    """A docstring's or description's text, with what Markdown would take for markup as it stands."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if index % 2 else _without_markup(part) for index, part in enumerate(parts))


def _without_markup(text: str) -> str:
    text = re.sub(r"\*(?=\S)|\\(?=[*_\\])", lambda match: "\\" + match[0], text.replace("<", "&lt;"))
    text = re.sub(r"https?://[^\s),;]*[^\s),;.]", r"<\g<0>>", text)
    return re.sub(r"(?<![\w-])--[a-z][a-z-]+", r"`\g<0>`", text)


def code(language: str, text: str) -> str:
    """A block of code."""
    return f"```{language}\n{text.strip()}\n```"


def anchor(heading: str) -> str:
    """The anchor that GitHub and Python-Markdown give a heading."""
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def link(heading: str, text: str = "") -> str:
    """A link to a heading of the same page."""
    return f"[{text or heading}](#{anchor(heading)})"


def names(words: Iterable[str], last: str = "or") -> str:
    """Names as code, in a list with `or` before the last."""
    *others, final = [f"`{word}`" for word in words]
    return f"{', '.join(others)} {last} {final}" if others else final
