"""The machine and its operating system, by facts that two machines can share: no name, address or serial number."""

from __future__ import annotations

import platform
import sys
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from prefect_stagegate.environment.difference import UNKNOWN, EnvironmentDifference, Weight

RELEASE_FILES = ("etc/os-release", "usr/lib/os-release")
DECLARED = ("architecture", "os")
"""Facts whose difference blocks unless the caller declares others."""


@dataclass(frozen=True, slots=True)
class Host:
    """What programs run on."""

    architecture: str
    """`x86_64`, `aarch64`, …"""
    os: str
    """Distribution and release, as in `debian 12`; in a container the container's."""
    kernel: str
    """Name and release, as in `Linux 6.8.0-31-generic`."""
    libc: str
    """Name and version, as in `glibc 2.36`."""


def capture_host(root: Path = Path("/")) -> Host:
    """Capture the facts of this machine."""
    kernel = f"{platform.system() or sys.platform} {platform.release() or UNKNOWN}"
    libc = " ".join(filter(None, platform.libc_ver())) or UNKNOWN
    return Host(platform.machine() or UNKNOWN, _os(root), kernel, libc)


def _os(root: Path) -> str:
    # The first file that exists counts, as os-release(5) has it.
    for name in RELEASE_FILES:
        try:
            lines = (root / name).read_text(errors="replace").splitlines()
        except OSError:
            continue
        facts = {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in lines)}
        return " ".join(filter(None, (facts.get("ID"), facts.get("VERSION_ID")))) or UNKNOWN
    return UNKNOWN


def compare_hosts(there: Host, here: Host, declared: Collection[str] = DECLARED) -> Iterator[EnvironmentDifference]:
    """Yield a block for each declared fact that differs, a warning for each other one."""
    facts_here = asdict(here)
    for name, was in asdict(there).items():
        now = facts_here[name]
        if UNKNOWN in (was, now):
            yield EnvironmentDifference("host", name, was, now, Weight.UNKNOWN, "the system does not report it")
        elif was != now:
            weight = Weight.BLOCKING if name in declared else Weight.WARNING
            why = "declared to be the same" if name in declared else "not declared to be the same"
            fix = f"Run on {was} here too, or allow the difference."
            yield EnvironmentDifference("host", name, was, now, weight, why, fix)
