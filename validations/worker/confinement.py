"""What a process that reads files of strangers may open, which environment variables it gets, and how it begins."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TextIO

from prefect_stagegate import errors
from prefect_stagegate.validations.worker import landlock

SYSTEM = (
    # shared libraries, and how they are found
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store", "/etc/ld.so.cache"),
    # time zones, languages, and what OpenSSL reads when it is loaded
    *("/etc/localtime", "/usr/share/zoneinfo", "/usr/share/locale", "/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf"),
    # how many cores and how much memory there are
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm/overcommit_memory"),
    *("/proc/self/cgroup", "/proc/self/mountinfo", "/proc/self/stat", "/proc/self/statm", "/proc/self/status"),
    *("/sys/fs/cgroup", "/sys/devices/system", "/sys/kernel/mm/transparent_hugepage"),
    *("/dev/urandom", "/dev/random", "/dev/zero"),
)
"""Paths outside of Python that the libraries read. None of them holds a user's data or a secret."""
DEVICES = ("/dev/null",)
"""Files that the process may write to, beside the scratch folder."""
VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "LANGUAGE", "TZ", "TZDIR", "VIRTUAL_ENV")
PREFIXES = ("LC_", "PYTHON", "OMP_", "OPENBLAS_", "MKL_", "COVERAGE_", "COV_")
"""The variables that the process gets, by name and by prefix. None of them holds credentials."""

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Keep the libraries from starting threads when they are imported: a fork of a process with threads may hang."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What the process of an engine may do beyond those of others. It may connect by TCP, too."""

    variables: tuple[str, ...]
    """The environment variables that it also gets. One may be a secret, which only its own child gets."""
    reads: Callable[[], Iterable[str | Path]]
    """What it may read as well."""
    programs: Callable[[], Iterable[str | Path]]
    """The folders whose programs it may start."""
    note: str
    """What evidence says of it, after what confines the process."""
    unconfined: str
    """What evidence says where nothing confines the process."""


def environment(given: Mapping[str, str], scratch: str, rights: Rights | None = None) -> dict[str, str]:
    """The environment of the validating process: the scratch folder is its home."""
    names = (*VARIABLES, *rights.variables) if rights else VARIABLES
    kept = {name: value for name, value in given.items() if name in names or name.startswith(PREFIXES)}
    # Great Expectations leaves its temporary folders behind. In the scratch folder they are removed with it.
    return {**kept, "GX_ANALYTICS_ENABLED": "false", "TMPDIR": scratch, "HOME": scratch, **ONE_THREAD}


def confine(scratch: str, views: Iterable[str], rights: Rights | None = None) -> str:
    """Let this process open its version, its scratch folder and its libraries only.

    Args:
        scratch: Where the process may write.
        views: The folders of versions.
        rights: What it may do beyond that.

    Returns:
        The name and version of what confines the process, for the evidence.
    """
    read, write = [*_installation(), *SYSTEM, *views], [scratch, *DEVICES]
    if rights is None:
        version = landlock.confine(read, write)
        return f"Landlock {version}" if version else NOT_CONFINED
    version = landlock.confine([*read, *rights.reads()], write, execute=rights.programs(), tcp=True)
    return f"Landlock {version}{rights.note}" if version else rights.unconfined


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def reserve_standard_output() -> TextIO:
    """Reserve standard output for results: prints of libraries go to standard error from now on."""
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return results


_PR_SET_PDEATHSIG = 1
NOT_CONFINED = "none: Landlock is not available, so only DuckDB's and pandas' own limits hold"


def _installation() -> set[str | Path]:
    """The folders of Python and of this package, whose parts may be links to other folders."""
    variables = [os.environ.get(name, "").split(os.pathsep) for name in ("LD_LIBRARY_PATH", "TZDIR")]
    return {
        *filter(None, (*sys.path, *chain.from_iterable(variables))),
        *sysconfig.get_paths().values(),
        Path(sys.base_prefix, "lib"),
        Path(sys.base_exec_prefix, "lib"),
        Path(errors.__file__).parent,
        Path(__file__).resolve().parents[1],  # `validations`, which is a link in a checkout
    }
