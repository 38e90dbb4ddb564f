"""Events about what a command did, sent to Prefect's API where one is configured."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from prefect_stagegate.cli.printing import escaped

if TYPE_CHECKING:
    from prefect_stagegate.tasks._support.version_events import VersionEvent

PATIENCE = 10.0
"""Seconds that a command waits for Prefect's API, at most. By then its work is done and printed."""


def emit_event(event: Callable[[], VersionEvent]) -> None:
    """Send an event to Prefect's API, if one is configured. A failure is printed and changes nothing else.

    `event` makes it, and is called only then.
    """
    if not api_is_configured():
        return
    # Readers of a pipe see what the command did before it waits for the API.
    sys.stdout.flush()
    # The import of Prefect stands inside, too: the command has done its work, and nothing may fail it now.
    try:
        from prefect_stagegate.tasks._support.notify import send_events

        failure = _send_within(PATIENCE, partial(send_events, [event()]))
    except Exception as error:  # noqa: BLE001 - whatever ails Prefect
        failure = f"{type(error).__name__}: {error}"
    if failure:
        print(f"stagegate: no event was sent to Prefect: {escaped(failure)}", file=sys.stderr)


def _send_within(seconds: float, send: Callable[[], None]) -> str:
    """Call `send` for so many seconds at most; return why it failed or did not return, empty when it succeeded."""
    # What is returned when the thread has not ended by then; the thread replaces it.
    failures = [f"no answer within {seconds:.0f} s"]

    def run() -> None:
        try:
            send()
            failures.clear()
        except Exception as error:  # noqa: BLE001 - whatever ails the API
            failures[:] = [f"{type(error).__name__}: {error}"]

    # A daemon thread ends with the process, so an API that hangs delays no command.
    sending = Thread(target=run, name="stagegate-events", daemon=True)
    sending.start()
    sending.join(seconds)
    return "".join(failures)


def api_is_configured() -> bool:
    """Whether the environment or Prefect's active profile names an API; Prefect's own import would take seconds."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect").expanduser()
    file = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    try:
        profiles = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    active = os.environ.get("PREFECT_PROFILE") or profiles.get("active")
    try:
        return bool(profiles["profiles"][active]["PREFECT_API_URL"])
    # People write this file: a table may be missing, or be a text, and then no API is named.
    except (KeyError, TypeError):
        return False
