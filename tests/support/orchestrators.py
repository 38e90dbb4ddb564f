"""What tests of `deployments/orchestrators/` share: the folder, the packages of others, and the command in a folder."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = ROOT / "deployments/orchestrators"
ENVIRONMENT = ROOT / ".orchestrators"
"""Dagster, and Argo's models, whose dependencies are not this project's: the Makefile makes it."""


def install_command(folder: Path) -> Path:
    """Put `stagegate` into a folder, for programs that have an environment of their own; returns its path."""
    folder.mkdir()
    command = folder / "stagegate"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m prefect_stagegate "$@"\n')
    command.chmod(0o755)
    return command
