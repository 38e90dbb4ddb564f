"""The Python interpreter and its distributions."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import Distribution, distributions

from prefect_stagegate.environment.difference import ABSENT, UNKNOWN, EnvironmentDifference, Weight, version_weight

SHIPPED_METADATA = ("METADATA", "entry_points.txt")
"""Metadata files that come with a distribution; installers add the others, each its own."""
HEADER = re.compile(r"^(Name|Version):[ \t]*(\S.*)$", re.MULTILINE | re.IGNORECASE)
SHOWN = 5
"""Names that a message lists at most."""


@dataclass(frozen=True, slots=True)
class Installed:
    """One distribution."""

    version: str
    files: str
    """`sha256:<hex>` over the names and digests in its RECORD; unknown without one. Leaves out compiled files, scripts
    and installers' notes, which differ between virtual environments."""


@dataclass(frozen=True, slots=True)
class Python:
    """One interpreter with its distributions."""

    version: str
    """`3.11.9`."""
    implementation: str
    """`CPython`, `PyPy`, …"""
    distributions: Mapping[str, Installed]
    """By normalised name."""


def capture_python(path: Iterable[str] | None = None) -> Python:
    """Capture the interpreter of this process, and the distributions on `path`, by default `sys.path`.

    A folder is read once a process, and again when an entry was added to it or removed.
    """
    folders = [os.path.abspath(folder) for folder in (sys.path if path is None else path)]  # noqa: PTH100 - "" is here
    return _captured(tuple((folder, _changed(folder)) for folder in folders))


def _changed(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns  # noqa: PTH116 - also of an archive
    except OSError:
        return 0


@lru_cache(maxsize=4)  # reading the records of 300 distributions takes most of a gate's check
def _captured(folders: tuple[tuple[str, int], ...]) -> Python:
    installed: dict[str, Installed] = {}
    for distribution in distributions(path=[folder for folder, _ in folders]):
        # A broken installation leaves metadata without a name or version; it is recorded as unknown.
        headers = _headers(distribution)
        name = re.sub(r"[-_.]+", "-", headers.get("name", UNKNOWN)).lower()
        # An import takes the first one on the path.
        if name not in installed:
            installed[name] = Installed(headers.get("version", UNKNOWN), _files(distribution))
    return Python(platform.python_version(), platform.python_implementation(), dict(sorted(installed.items())))


def _headers(distribution: Distribution) -> dict[str, str]:
    """Name and version, read by ourselves: Python's reader parses the readme, too, which took most of a capture."""
    text = next(filter(None, map(distribution.read_text, ("METADATA", "PKG-INFO", ""))), "")  # the last is a lone file
    head = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
    return {key.lower(): value.strip() for key, value in HEADER.findall(head)}


def _files(distribution: Distribution) -> str:
    if _is_editable(distribution):
        return UNKNOWN  # its files lie somewhere else, and change
    rows = sorted(filter(_is_shipped, (distribution.read_text("RECORD") or "").splitlines()))
    return "sha256:" + hashlib.sha256("\n".join(rows).encode()).hexdigest() if rows else UNKNOWN


def _is_shipped(row: str) -> bool:
    """Whether a RECORD's row, `path,digest,size`, names a file that is the same in each installation."""
    # From the end, since only the path may have commas. The empty texts stand in for fields that a damaged row lacks.
    path, digest, _ = [*row.rsplit(",", 2), "", ""][:3]
    path = path.strip('"')
    if not digest or path.startswith(("..", "/")) or path.endswith(".pyc"):
        return False
    folder, _, name = path.partition("/")
    return not folder.endswith(".dist-info") or name in SHIPPED_METADATA


def _is_editable(distribution: Distribution) -> bool:
    try:
        url = json.loads(distribution.read_text("direct_url.json") or "{}")
        return bool(url.get("dir_info", {}).get("editable"))
    except (ValueError, AttributeError, RecursionError):
        return False


def compare_pythons(there: Python, here: Python) -> Iterator[EnvironmentDifference]:
    """Yield a warning for another patch release, a block for any other difference, also another build of a version."""
    was, now = there.implementation, here.implementation
    if was != now:
        why, fix = "another interpreter runs other code", f"Run {was} here too."
        yield EnvironmentDifference("python", "implementation", was, now, Weight.BLOCKING, why, fix)
    if there.version != here.version:
        yield _version_difference("python", there.version, here.version, f"Run Python {there.version} here too.")
    for name in sorted(there.distributions.keys() | here.distributions.keys()):
        yield from _distribution_differences(name, there.distributions.get(name), here.distributions.get(name))
    yield from _without_record(there, here)


def _distribution_differences(
    name: str, there: Installed | None, here: Installed | None
) -> Iterator[EnvironmentDifference]:
    if there is None or here is None:
        was, now = (side.version if side else ABSENT for side in (there, here))
        why = "code that needs it fails" if here is None else "it was not installed there, and an import may use it"
        yield EnvironmentDifference("python", name, was, now, Weight.BLOCKING, why, _pip_command(name, was))
    elif there.version != here.version:
        yield _version_difference(name, there.version, here.version, _pip_command(name, there.version))
    elif there.files != here.files and UNKNOWN not in (there.files, here.files):
        was, now = (f"{side.version} ({side.files[:14]})" for side in (there, here))
        fix = f"pip install --force-reinstall {name}=={there.version}, from where it was installed there"
        why = "the same version has other files"
        yield EnvironmentDifference("python", name, was, now, Weight.BLOCKING, why, fix)


def _without_record(there: Python, here: Python) -> Iterator[EnvironmentDifference]:
    """Yield one warning for all distributions of equal versions whose files can't be compared."""
    unknown = [
        name
        for name, installed in there.distributions.items()
        if (other := here.distributions.get(name)) and other.version == installed.version
        if UNKNOWN in (installed.files, other.files)
    ]
    if unknown:
        names = ", ".join(unknown[:SHOWN]) + (", …" if len(unknown) > SHOWN else "")
        why = f"without a RECORD it is unknown whether the files of {len(unknown)} are the same: {names}"
        fix = "Install wheels in both environments, nothing editable."
        yield EnvironmentDifference("python", "files", UNKNOWN, UNKNOWN, Weight.WARNING, why, fix)


def _version_difference(name: str, there: str, here: str, fix: str) -> EnvironmentDifference:
    weight = version_weight(there, here, same=2)
    why = {
        Weight.WARNING: "only a patch release apart",
        Weight.BLOCKING: "releases that are further apart may behave differently",
    }.get(weight, "its metadata has no version")
    return EnvironmentDifference("python", name, there, here, weight, why, fix)


def _pip_command(name: str, version: str) -> str:
    return f"pip uninstall {name}" if version == ABSENT else f"pip install {name}=={version}"
