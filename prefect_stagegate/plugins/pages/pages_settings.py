"""The settings of `stagegate serve`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect_stagegate.model.settings import folder, optional, setting


@dataclass(frozen=True, slots=True)
class PagesSettings:
    """Where the server listens, and what it asks of readers."""

    pages_bind: str = setting("127.0.0.1:8445", "HOST:PORT", "Where `stagegate serve` listens.", str)
    pages_base_path: str = setting(
        "",
        "a path",
        "The path below which `stagegate serve` shows the pages; without it, that of STAGEGATE_PAGES_URL.",
        str,
    )
    pages_token_file: Path | None = setting(
        "",
        "a file that others can't read",
        "Holds the token that readers of the pages give as their password; without it, none is asked for.",
        optional(folder),
    )
