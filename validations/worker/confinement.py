"""What a process that reads files of strangers may open, which environment variables it gets, and how it ends."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TextIO

from prefect_stagegate import errors
from prefect_stagegate.validations.worker import landlock
from prefect_stagegate.validations.worker.process_limits import OUT_OF_MEMORY, is_about_limits

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


def run_in_group(act: Callable[[], object], life: int) -> int | None:
    """Run a function in a forked process, and kill its group when it ends, so that nothing that it started is left.

    Args:
        act: The function. Nothing of it returns into the code of this process.
        life: A descriptor that closes when the parent of this process ends. The forked process doesn't get it.

    Returns:
        Its status; negative for a signal. None where it was killed since `life` closed or this process was to end.
    """
    ended, alive = os.pipe()
    guard = os.getpid()
    process = os.fork()
    if not process:
        status = 1
        try:
            os.setpgid(0, 0)
            # The kernel kills it when the guard ends, which may have been before this call.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() == guard:
                os.dup2(os.open(os.devnull, os.O_RDONLY), life)
                act()
                status = 0
        except BaseException as error:  # noqa: BLE001 - nothing may return into the guard's code
            status = OUT_OF_MEMORY if is_about_limits(f"{type(error).__name__}: {error}") else 1
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(alive)
    kill, is_stopped = partial(os.killpg, process, signal.SIGKILL), False

    def stop(*_: object) -> None:
        nonlocal is_stopped
        is_stopped = True
        kill()

    with suppress(OSError):  # it does the same; whoever comes first
        os.setpgid(process, process)
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    # The pipe closes with the process.
    if ended not in select.select([life, ended], [], [])[0]:
        stop()
    # A zombie keeps its group's number, so kill the group before the process is waited for.
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    kill()
    for number, handler in before.items():
        signal.signal(number, handler)
    os.close(ended)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return None if is_stopped else status


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
