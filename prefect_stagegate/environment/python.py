"""The interpreter and what is installed for it."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions

from prefect_stagegate.environment.difference import ABSENT, UNKNOWN, Difference, Weight, version_weight

OWN_METADATA = ("METADATA", "entry_points.txt")
"""Of a distribution's metadata, what came with it; installers add the rest, each its own."""
HEADER = re.compile(r"^(Name|Version):[ \t]*(\S.*)$", re.MULTILINE | re.IGNORECASE)
SHOWN = 5
"""Names that a sentence lists."""


@dataclass(frozen=True, slots=True)
class Installed:
    """One distribution."""

    version: str
    files: str
    """`sha256:<hex>` over the names and digests of its files as its RECORD has them, without compiled files, scripts
    and installers' notes, which are another's in each virtual environment; unknown where no record tells."""


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
    """Look at the interpreter that runs this.

    Args:
        path: Where to look for distributions; `sys.path` by default.
    """
    found: dict[str, Installed] = {}
    for distribution in distributions(path=list(sys.path if path is None else path)):
        # A broken installation leaves metadata without a name or version, and must not hide behind an exception.
        headers = _headers(distribution)
        name = re.sub(r"[-_.]+", "-", headers.get("name", UNKNOWN)).lower()
        if name not in found:  # the first on the path is the one that an import finds
            found[name] = Installed(headers.get("version", UNKNOWN), _files(distribution))
    return Python(platform.python_version(), platform.python_implementation(), dict(sorted(found.items())))


def _headers(distribution: Distribution) -> dict[str, str]:
    """Name and version. Python's own reader parses the whole page, readme included, which takes most of a capture."""
    text = next(filter(None, map(distribution.read_text, ("METADATA", "PKG-INFO", ""))), "")  # the last is a lone file
    head = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
    return {key.lower(): value.strip() for key, value in HEADER.findall(head)}


def _files(distribution: Distribution) -> str:
    if _is_editable(distribution):
        return UNKNOWN  # its files are somewhere else, and change
    rows = sorted(filter(_is_its_own, (distribution.read_text("RECORD") or "").splitlines()))
    return "sha256:" + hashlib.sha256("\n".join(rows).encode()).hexdigest() if rows else UNKNOWN


def _is_its_own(row: str) -> bool:
    """Whether a row of a RECORD, `path,digest,size`, names a file that is the same wherever it is installed."""
    path, digest, _ = [*row.rsplit(",", 2), "", ""][:3]
    path = path.strip('"')
    if not digest or path.startswith(("..", "/")) or path.endswith(".pyc"):
        return False
    folder, _, name = path.partition("/")
    return not folder.endswith(".dist-info") or name in OWN_METADATA


def _is_editable(distribution: Distribution) -> bool:
    try:
        url = json.loads(distribution.read_text("direct_url.json") or "{}")
        return bool(url.get("dir_info", {}).get("editable"))
    except (ValueError, AttributeError):
        return False


def compare_pythons(there: Python, here: Python) -> Iterator[Difference]:
    """A patch release warns, any other difference blocks, also another build under the same version."""
    if there.implementation != here.implementation:
        fix = f"Run {there.implementation} here too."
        why = "another interpreter runs other code"
        yield Difference(
            "python", "implementation", there.implementation, here.implementation, Weight.BLOCKING, why, fix
        )
    if there.version != here.version:
        yield _versions("python", there.version, here.version, f"Run Python {there.version} here too.")
    for name in sorted(there.distributions.keys() | here.distributions.keys()):
        yield from _distribution(name, there.distributions.get(name), here.distributions.get(name))
    yield from _without_record(there, here)


def _distribution(name: str, there: Installed | None, here: Installed | None) -> Iterator[Difference]:
    if there is None or here is None:
        was, now = (side.version if side else ABSENT for side in (there, here))
        why = "code that needs it fails" if here is None else "it was not there, and an import may find it"
        yield Difference("python", name, was, now, Weight.BLOCKING, why, _pip(name, was))
    elif there.version != here.version:
        yield _versions(name, there.version, here.version, _pip(name, there.version))
    elif there.files != here.files and UNKNOWN not in (there.files, here.files):
        was, now = (f"{side.version} ({side.files[:14]})" for side in (there, here))
        fix = f"pip install --force-reinstall {name}=={there.version}, from where it was installed there"
        why = "the same version was built from something else"
        yield Difference("python", name, was, now, Weight.BLOCKING, why, fix)


def _without_record(there: Python, here: Python) -> Iterator[Difference]:
    """One warning for all distributions whose versions are equal and whose files nobody can compare."""
    unknown = [
        name
        for name, one in there.distributions.items()
        if (other := here.distributions.get(name)) and other.version == one.version
        if UNKNOWN in (one.files, other.files)
    ]
    if unknown:
        names = ", ".join(unknown[:SHOWN]) + (", …" if len(unknown) > SHOWN else "")
        why = f"no record tells whether the files of {len(unknown)} are the same: {names}"
        fix = "Install wheels in both environments, nothing editable."
        yield Difference("python", "files", UNKNOWN, UNKNOWN, Weight.WARNING, why, fix)


def _versions(name: str, there: str, here: str, fix: str) -> Difference:
    weight = version_weight(there, here, same=2)
    why = {
        Weight.WARNING: "only a patch release apart",
        Weight.BLOCKING: "releases that are further apart may behave differently",
    }.get(weight, "its metadata has no version")
    return Difference("python", name, there, here, weight, why, fix)


def _pip(name: str, version: str) -> str:
    return f"pip uninstall {name}" if version == ABSENT else f"pip install {name}=={version}"
