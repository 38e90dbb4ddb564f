"""Where the pages of `validate --data-docs` go: refuse what is there, and copy finished pages."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from prefect_stagegate.errors import UsageError, ValidationError

MADE = "data_docs"
"""The folder below the scratch folder in which the judging process makes the pages."""


def refuse_taken(folder: Path) -> None:
    """Raise `UsageError` unless `folder` is missing or empty."""
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise UsageError(f"{folder} is not an empty folder", hint="Name a folder that does not exist: --data-docs NEW.")


def publish(scratch: Path, folder: Path) -> None:
    """Copy the pages to `folder`; it appears whole, or not at all.

    Raises:
        ValidationError: The judging process left something else than files and folders.
        UsageError: The folder can't be written.
    """
    made, folder = scratch / MADE, folder.absolute()
    if any(path.is_symlink() or not (path.is_file() or path.is_dir()) for path in (made, *made.rglob("*"))):
        raise ValidationError("The Data Docs hold something else than files", hint="Report it with --debug.")
    draft = folder.with_name(f".{uuid.uuid4().hex}")
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(made, draft)
        draft.replace(folder)  # over an empty folder only
    except OSError as error:
        raise UsageError(f"The Data Docs can't be written to {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
