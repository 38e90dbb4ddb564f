"""Calls of probes: a probe with its settings, and what its result depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import version
from typing import Any

from prefect_stagegate.doors import load
from prefect_stagegate.errors import MissingExtra
from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.spec import ProbeSpec
from prefect_stagegate.validations.files.facts import DECODERS

MEANING = 2
"""Raise it when a probe of this package changes what passes: earlier passes then count no more."""
BY_PLUGINS = frozenset({"audio", "image", "numpy", "safetensors", "tar"})
"""The probes that a spec may name and that a plugin has."""


@dataclass(frozen=True)
class ProbeCall:
    """A probe with its settings."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_spec(cls, probe: str | ProbeSpec) -> ProbeCall:
        """The call that an item of `probes` asks for."""
        if isinstance(probe, str):
            return cls(probe)
        ((name, settings),) = probe.model_dump(mode="json", exclude_none=True).items()
        return cls(name, settings)

    @cached_property
    def decodes(self) -> bool:
        """Whether it runs in a worker, and not again on bytes that passed."""
        return self.name in DECODERS or self.name in BY_PLUGINS

    @cached_property
    def key(self) -> str:
        """The digest of what a pass depends on, beside the file: the probe, its settings and its library's release.

        Raises:
            MissingExtra: The probe's library or its plugin is not installed.
        """
        return digest_of([self.name, dict(self.settings), MEANING, release(self.name)])


@cache
def release(probe: str) -> str:
    """The release of the library that a probe's result depends on; empty for one that depends on none.

    Raises:
        MissingExtra: The library or the plugin that has the probe is not installed.
    """
    if probe in BY_PLUGINS and probe not in DECODERS:
        raise MissingExtra(
            f"The plugin for the probe {probe} is not installed", hint="Install prefect-stagegate with its plugins."
        )
    place = DECODERS[probe].release if probe in DECODERS else ""
    return str(load(place)(probe)) if place else ""


def release_of_pyarrow(_: str) -> str:
    """The release of the library that reads Parquet."""
    return f"pyarrow {version('pyarrow')}"
