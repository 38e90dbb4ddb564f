"""The options of a source are compared with the list of what may be said to its library, before that hears of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect_stagegate.errors import UsageError
from prefect_stagegate.http import Allowed, require_allowed
from prefect_stagegate.objects.translating import unknown_option
from prefect_stagegate.sources.base import public_url
from prefect_stagegate.spec.permitted import Kind, Library, flat


def require_permitted(library: Library, url: str, options: Mapping[str, Any], allowed: Allowed) -> None:
    """Refuse an option that the library may not be given, an address that no source may have, and a file that is none.

    Args:
        library: Whose options.
        url: The source's, for errors.
        options: With the credentials among them.
        allowed: Hosts that may be asked wherever they are.

    Raises:
        UsageError: An option can't be used.
    """
    for name, value in flat(options):
        kind = library.kind(name)
        if kind is None:
            raise unknown_option(library, name, source=public_url(url))
        for one in value if isinstance(value, list | tuple) else (value,):
            if kind is Kind.ADDRESS:
                require_allowed(str(one), allowed)
            elif kind is Kind.FILE and isinstance(one, str):
                _require_plain_file(name, one, url)


def _require_plain_file(name: str, path: str, url: str) -> None:
    """Refuse a device or pipe, which may have no end. One that is absent its reader names."""
    file = Path(path).expanduser()
    if file.exists() and not file.is_file():
        raise UsageError(
            f"The option {name} names {path}, which is no plain file", hint="Name a file.", source=public_url(url)
        )
