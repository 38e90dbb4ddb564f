"""What an adapter is opened with: a URL, storage options, and the terms: time-outs, permitted hosts and folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect_stagegate.model import Pin
from prefect_stagegate.sources.adapter import Source
from prefect_stagegate.sources.walk import ENTRIES

if TYPE_CHECKING:
    from prefect_stagegate.transport.http import Allowed

IDLE_SECONDS = 30.0
"""Default of `Terms.idle`."""

Options = Mapping[str, Any]
Recall = Callable[[str, str, Pin], int | None]
"""Looks up an object's size in bytes by its source's identity, its key and its pin; None where unknown."""


def nothing(_identity: str, _key: str, _pin: Pin) -> None:
    """None: no object's size is known."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Limits and permissions under which an adapter works."""

    idle: float = IDLE_SECONDS
    """Seconds without a byte after which a read is given up."""
    allowed: Allowed = ()
    """Hosts that may be asked even at addresses that no source may have."""
    scratch: str | None = None
    """Folder for temporary copies of objects that must be rendered before they are read; None for the system's."""
    recall: Recall = nothing
    """Known sizes of rendered objects, so that a listing need not render them again."""
    most: int = ENTRIES
    """Most files and folders that one listing looks at, where a source has folders."""


DEFAULT_TERMS = Terms()

Opener = Callable[[str, Options, Terms], Source]
"""Opens the adapter for a URL of its scheme, with the credentials among the options. Sends no request yet."""
