"""Keeping credentials out of what is told: a library's exceptions may repeat the address and options it was given."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from prefect_stagegate.spec.confidential import is_secret_name

HIDDEN = "***"
LEAST = 4
"""Characters of a text that is worth hiding: shorter ones stand in every sentence."""


class Hiding:
    """What must not be told about a source.

    Args:
        url: As it was given; its user, password and query are hidden.
        options: Its storage options; the values of those whose names speak of credentials are hidden.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        found = {text for text in (*_of_url(url), *_of_options(options)) if len(text) >= LEAST}
        self._texts = sorted(found | {unquote(text) for text in found}, key=len, reverse=True)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be told, to look into it."""
        return tuple(self._texts)

    def in_text(self, text: str) -> str:
        """The text without them."""
        for secret in self._texts:
            text = text.replace(secret, HIDDEN)
        return text

    def cause(self, error: Exception) -> Exception | None:
        """The error, to be told as the cause of another; None when it or one of its own causes repeats a secret."""
        told = "".join(traceback.format_exception(error))
        return error if self.in_text(told) == told else None


def _of_url(url: str) -> Iterator[str]:
    for link in url.split("::"):
        yield link.partition("?")[2]
        user, colon, password = link.partition("://")[2].rpartition("@")[0].partition(":")
        if colon:
            yield from (user, password)


def _of_options(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        if is_secret_name(name):
            yield from _leaves(value)
        elif isinstance(value, Mapping):
            yield from _of_options(value)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for one in value.values():
            yield from _leaves(one)
    elif isinstance(value, str):
        yield from (value, value.rpartition(" ")[2])  # `Bearer …` is told with its first word or without
