"""How fsspec's option names become settings: one visible table a family. Pure: no environment, no file is read.

An option is translated, or irrelevant to reading whole objects, or known to the family's fsspec client alone, or
refused with the nearest name.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from prefect_stagegate.errors import UsageError

S = TypeVar("S")
Translation = Callable[[Any], dict[str, Any]]
"""From an option's value to the settings that it gives."""

OF_FSSPEC = frozenset({
    "asynchronous", "batch_size", "block_size", "blocksize", "cache_type", "default_block_size", "default_cache_type",
    "default_fill_cache", "fill_cache", "listings_expiry_time", "loop", "max_concurrency", "max_paths",
    "skip_instance_cache", "use_listings_cache",
})  # fmt: skip
"""Options of fsspec's file systems that change nothing about which bytes an object has."""


@dataclass(frozen=True)
class Table(Generic[S]):
    """The options of one family."""

    family: str
    """As people call it."""
    client: str
    """fsspec's client for it, whose names these are."""
    translations: Mapping[str, Translation]
    """Each option's name, dots for nesting."""
    irrelevant: frozenset[str] = OF_FSSPEC
    elsewhere: tuple[str, ...] = ()
    """Options, or the beginnings of nested ones, that the fsspec client understands and obstore does not."""
    nested: tuple[str, ...] = ()
    """Options whose mappings hold options."""

    def apply(self, settings: S, options: Mapping[str, Any]) -> tuple[S, tuple[str, ...]]:
        """The settings with the options in them; also the names of those that only the fsspec client understands.

        Raises:
            UsageError: An option is unknown, or a value is not usable.
        """
        left = []
        for name, value in self._flat(options):
            if name in self.translations:
                settings = replace(settings, **self.translations[name](value))  # type: ignore[type-var]
            elif name.partition(".")[0] in self.elsewhere:
                left.append(name)
            elif name not in self.irrelevant:
                raise self._unknown(name)
        return settings, tuple(left)

    def _flat(self, options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for name, value in options.items():
            if isinstance(value, Mapping) and (prefix or name in self.nested):
                yield from self._flat(value, f"{prefix}{name}.")
            elif value is not None:
                yield f"{prefix}{name}", value

    def _unknown(self, name: str) -> UsageError:
        near = difflib.get_close_matches(name, [*self.translations, *self.irrelevant, *self.elsewhere], n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"The names are those of {self.client}."
        return UsageError(f"{name!r} is no option of {self.family} source", hint=hint)


def is_on(value: Any) -> bool:
    """Whether a switch is on, however it is written."""
    return str(value).lower() in ("1", "true", "yes", "on")


def text(field: str) -> Translation:
    """The value as a text."""
    return lambda value: {field: str(value or "")}


def switch(field: str) -> Translation:
    """The value as on or off."""
    return lambda value: {field: is_on(value)}


def verify(value: Any) -> dict[str, Any]:
    """Which certificate authorities are trusted: `verify: /etc/ca.pem`.

    Raises:
        UsageError: Nobody is to be checked.
    """
    if isinstance(value, str) and value.lower() not in ("true", "false"):
        return {"ca_file": value}
    if not is_on(value):
        raise UsageError(
            "Reading without checking the server's certificate is not supported",
            hint="Set `verify:` to a PEM file with the certificate authority of your server.",
        )
    return {}
