"""Write the reference pages of the documentation from the code: `make reference`.

One function a page, in `PAGES`. A test compares each page with what its function returns, so none goes stale.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from pages.checks import checks_page
from pages.cli import cli_page
from pages.metrics import metrics_page
from pages.settings import settings_page
from pages.spec import spec_page
from pages.tasks import tasks_page

FOLDER = Path(__file__).parents[1] / "docs/reference"
PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "spec.md": spec_page,
    "settings.md": settings_page,
    "checks.md": checks_page,
    "tasks.md": tasks_page,
    "metrics.md": metrics_page,
}
"""The pages by the name of their file, each with the function that gives its text."""


def main(folder: Path = FOLDER) -> None:
    """Write all pages."""
    folder.mkdir(exist_ok=True)
    for name, generate in PAGES.items():
        folder.joinpath(name).write_text(generate(), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
