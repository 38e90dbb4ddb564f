"""The `stagegate` command. Each command's code is imported when it is called."""

from prefect_stagegate.cli.app import main

__all__ = ["main"]
