"""Tables that turn fsspec's option names into settings, one for each kind of source. Pure: reads no file or variable.

The source's definition lists the options. Each is translated here, or ignored, or left to the source's fsspec client;
an unlisted name is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from prefect_stagegate.doors import Kind, PermittedOptions, flat, unknown_option
from prefect_stagegate.errors import UsageError

S = TypeVar("S")
Translation = Callable[[Any], dict[str, Any]]
"""From an option's value to the settings that it gives."""


@dataclass(frozen=True)
class OptionTable(Generic[S]):
    """The options of one kind of source."""

    permitted: PermittedOptions
    translations: Mapping[str, Translation]
    """By each option's name, dots for nesting."""
    whole: tuple[str, ...] = ()
    """Options whose value is a mapping, which is not taken apart."""

    def apply(self, settings: S, options: Mapping[str, Any]) -> tuple[S, tuple[str, ...]]:
        """The settings with the options applied, and the names of the options that only the fsspec client understands.

        Raises:
            UsageError: An option is unknown, or a value is not usable.
        """
        left = []
        for name, value in self._flat(options):
            if name in self.translations:
                settings = replace(settings, **self.translations[name](value))  # type: ignore[type-var]
            elif (kind := self.permitted.kind(name)) is None:
                raise unknown_option(self.permitted, name)
            elif kind is not Kind.IGNORED:
                left.append(name)
        return settings, tuple(left)

    def _flat(self, options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        whole = {name: options[name] for name in self.whole if options.get(name) is not None}
        yield from whole.items()
        for path, value in flat({name: value for name, value in options.items() if name not in whole}):
            if value is not None:
                yield ".".join(path), value


def is_on(value: Any) -> bool:
    """Whether a switch is on: `1`, `true`, `yes` or `on`, in any case."""
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
        UsageError: The value turns the check off.
    """
    if isinstance(value, str) and value.lower() not in ("true", "false"):
        return {"ca_file": value}
    if not is_on(value):
        raise UsageError(
            "Reading without checking the server's certificate is not supported",
            hint="Set `verify:` to a PEM file with the certificate authority of your server.",
        )
    return {}
