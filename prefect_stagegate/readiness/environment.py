"""What is known of the Python environment that a version is judged in, and its fingerprint."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import distributions

from pydantic import TypeAdapter

from prefect_stagegate.canonical import digest_of

UNKNOWN = "unknown"
"""What stands for something that could not be determined."""


@dataclass(frozen=True, slots=True)
class Environment:
    """One Python environment."""

    python: str
    """Its version: `3.11.9`."""
    implementation: str
    """`CPython`, `PyPy`, …"""
    system: str
    """`Linux`, `Darwin`, …"""
    machine: str
    """`x86_64`, `aarch64`, …"""
    distributions: Mapping[str, str]
    """Version by normalised name of everything installed."""

    @property
    def fingerprint(self) -> str:
        """`sha256:<hex>` over all fields: two environments that share it have the same packages."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, object]:
        """The environment as JSON values."""
        return asdict(self) | {"distributions": dict(self.distributions)}

    @classmethod
    def from_json(cls, value: object) -> Environment:
        """Read what `to_json` wrote.

        Raises:
            pydantic.ValidationError: The value isn't an environment.
        """
        return TypeAdapter(cls).validate_python(value)


def capture() -> Environment:
    """Look at the environment that runs this."""
    return Environment(
        python=platform.python_version(),
        implementation=platform.python_implementation(),
        system=platform.system() or sys.platform,
        machine=platform.machine() or UNKNOWN,
        distributions=_installed(),
    )


def _installed() -> dict[str, str]:
    """The first of each name on the path, which is the one that an import finds."""
    found: dict[str, str] = {}
    for distribution in distributions():
        # A broken installation leaves metadata without a name or version, and must not hide behind an exception.
        metadata = distribution.metadata
        name = re.sub(r"[-_.]+", "-", metadata["Name"] or UNKNOWN).lower()
        found.setdefault(name, metadata["Version"] or UNKNOWN)
    return dict(sorted(found.items()))
