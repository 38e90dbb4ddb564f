"""How much the process that judges may take: memory, files and time. The kernel enforces all but the time."""

from __future__ import annotations

import re
import resource
from dataclasses import dataclass

from prefect_stagegate.model.settings import folder, optional, seconds, setting, size

GIB = 1 << 30
OPEN_FILES = 65536
"""Files that the process may have open at once, at most: DuckDB opens all files of a table."""
OUT_OF_MEMORY = 77
"""The status of a process that could not get more memory."""
SHARE = 8
"""DuckDB spills beyond this part of the memory: Great Expectations, Arrow and rows in transit need some, too."""

_ABOUT_LIMITS = re.compile(
    r"Out of Memory|MemoryError|Unable to allocate|malloc of size|bad_alloc|max_temp_directory_size|File too large",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ValidationLimits:
    """Bounds of one validation."""

    seconds: float = setting(
        "3600",
        "1 to 604800 seconds",
        "Seconds that judging the tables of one version may take.",
        seconds(1, 604_800),
        name="validation_timeout",
    )
    memory: int = setting(
        "8GiB",
        "1GiB to 1TiB",
        "Bytes of memory that the process which judges tables may take, at most those of this process' control group; "
        "DuckDB spills to disk beyond an eighth of it.",
        size("1GiB", "1TiB"),
        name="validation_memory",
    )
    spill: int = setting(
        "64GiB",
        "64MiB to 1000TiB",
        "Bytes that judging the tables of one version may spill there.",
        size("64MiB", "1000TiB"),
        name="validation_spill",
    )
    scratch: str | None = setting(
        "",
        "a folder",
        "Where judging tables spills what exceeds its memory; without it, the system's folder of temporary files.",
        optional(lambda text: str(folder(text))),
        name="validation_scratch",
    )


def apply(memory: int | None, spill: int) -> None:
    """Bound this process, and those that it starts.

    Args:
        memory: Bytes, without what is only reserved or read from files (RLIMIT_DATA); None for no bound.
        spill: Bytes of one file.
    """
    for kind, most in (
        *([(resource.RLIMIT_DATA, memory)] if memory is not None else []),
        (resource.RLIMIT_FSIZE, spill),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        # A process may lower its limits only, so a lower one of the system stays.
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (bound, bound))


def applied() -> tuple[int | None, int | None]:
    """The bytes of memory and of one file that this process may take; None where nothing bounds them."""
    memory, spill = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_FSIZE))
    return _bytes(memory), _bytes(spill)


def is_about_limits(error: str) -> bool:
    """Whether an error, with its type, says that the process needed more memory or scratch space than it may take."""
    return bool(_ABOUT_LIMITS.search(error))


def _bytes(limit: int) -> int | None:
    return None if limit == resource.RLIM_INFINITY else limit
