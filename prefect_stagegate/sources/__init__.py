"""Sources of objects: object stores, web servers, SFTP, directories, tables, and what fsspec reads.

The names are imported when they are used: reading a spec imports this package's definitions, and none of its code.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prefect_stagegate.doors import register

if TYPE_CHECKING:
    from prefect_stagegate.sources.adapter import BaseSource, Source, Wanted, everything, public_url
    from prefect_stagegate.sources.opening import Opening, open_source
    from prefect_stagegate.sources.terms import Opener, Options, Recall, Terms

__all__ = [
    "BaseSource",
    "Opener",
    "Opening",
    "Options",
    "Recall",
    "Source",
    "Terms",
    "Wanted",
    "everything",
    "open_source",
    "public_url",
    "register",
]


def __getattr__(name: str) -> Any:
    for module in ("adapter", "terms", "opening") if name in __all__ else ():
        found = getattr(import_module(f"{__name__}.{module}"), name, None)
        if found is not None:
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
