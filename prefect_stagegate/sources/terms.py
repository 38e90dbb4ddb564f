"""What an adapter is opened with: a URL, storage options, and the terms on which servers are asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prefect_stagegate.http import Allowed
from prefect_stagegate.model import Pin
from prefect_stagegate.sources.base import Source
from prefect_stagegate.sources.walk import ENTRIES

IDLE_SECONDS = 30.0
"""How long a read may stand still before it is given up, unless the caller says otherwise."""

Options = Mapping[str, Any]
Recall = Callable[[str, str, Pin], int | None]
"""The bytes that an object is known to have, by its source's identity, its key and its pin; None where unknown."""


def nothing(_identity: str, _key: str, _pin: Pin) -> None:
    """Know nothing of any object."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How servers are asked."""

    idle: float = IDLE_SECONDS
    """Seconds without a byte after which a read is given up."""
    allowed: Allowed = ()
    """Hosts that may be asked wherever they are."""
    scratch: str | None = None
    """A folder whose volume may hold what must be written before it can be read; None for the system's."""
    recall: Recall = nothing
    """Spares making an object whose size is known, where it must be made before it can be read."""
    most: int = ENTRIES
    """Files and folders that one listing looks at, where a source has folders."""


Opener = Callable[[str, Options, Terms], Source]
"""Makes an adapter for a URL of its scheme, with the credentials among the options. It asks no server anything yet."""
