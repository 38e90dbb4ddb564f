"""What the validating process may open, and which environment variables it gets."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path

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
SPARK_SYSTEM = (
    # whose name Hadoop asks for, and the address of `localhost`
    *("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/hosts", "/etc/host.conf", "/etc/resolv.conf"),
    *("/proc/self", "/proc/sys/net/core/somaxconn", "/proc/net", "/sys/fs/cgroup"),
    # what Java's settings and certificates are linked to
    *("/etc/java-17-openjdk", "/etc/java-21-openjdk", "/etc/ssl/certs"),
)
"""More that a JVM reads."""
PROGRAMS = ("/bin", "/usr/bin", "/lib", "/lib64", "/usr/lib", "/usr/lib64")
"""Where Java and the shell lie that starts it."""
VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "LANGUAGE", "TZ", "TZDIR", "VIRTUAL_ENV")
SPARK_FILES = ("SPARK_CONF_DIR", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")
"""Variables that name what Spark reads: its settings of a cluster, and the authorities of a server's certificate."""
SPARK_VARIABLES = ("JAVA_HOME", "STAGEGATE_SPARK", "SPARK_CONNECT_AUTHENTICATE_TOKEN", "SPARK_LOCAL_IP", *SPARK_FILES)
"""More for Spark: where Java and the cluster are, and the token for it, which only its own child gets."""
PREFIXES = ("LC_", "PYTHON", "OMP_", "OPENBLAS_", "MKL_", "COVERAGE_", "COV_")
"""The variables that the process gets, by name and by prefix. None of them holds credentials."""

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Keep the libraries from starting threads when they are imported: a fork of a process with threads may hang."""


def environment(given: Mapping[str, str], scratch: str, *, spark: bool = False) -> dict[str, str]:
    """The environment of the validating process: the scratch folder is its home, and only Spark's has a secret."""
    names = (*VARIABLES, *SPARK_VARIABLES) if spark else VARIABLES
    kept = {name: value for name, value in given.items() if name in names or name.startswith(PREFIXES)}
    # Great Expectations leaves its temporary folders behind. In the scratch folder they are removed with it.
    return {**kept, "GX_ANALYTICS_ENABLED": "false", "TMPDIR": scratch, "HOME": scratch, **ONE_THREAD}


def confine(scratch: str, views: Iterable[str], *, spark: bool = False) -> str:
    """Let this process open its version, its scratch folder and its libraries only.

    Args:
        scratch: Where the process may write.
        views: The folders of versions.
        spark: Whether it may also start programs and connect by TCP, as Spark does between Python and Java.

    Returns:
        The name and version of what confines the process, for the evidence.
    """
    read, write = [*_installation(), *SYSTEM, *views], [scratch, *DEVICES]
    if not spark:
        version = landlock.confine(read, write)
        return f"Landlock {version}" if version else NOT_CONFINED
    given = filter(None, map(os.environ.get, SPARK_FILES))
    version = landlock.confine([*read, *SPARK_SYSTEM, *given], write, execute=_java(), tcp=True)
    return f"Landlock {version}{WITH_SPARK}" if version else NOT_CONFINED_SPARK


WITH_SPARK = " for files; programs and TCP are open, which Spark needs"
NOT_CONFINED_SPARK = "none: Landlock is not available, so only Spark's settings hold"


def _java() -> list[str | Path]:
    """The folders from which Spark and Java are started."""
    program = shutil.which("java")
    # `java` may be a link to <JDK>/bin/java.
    home = os.environ.get("JAVA_HOME") or (Path(program).resolve().parent.parent if program else "")
    spark = importlib.util.find_spec("pyspark")
    scripts = [Path(spark.origin).parent / "bin"] if spark and spark.origin else []
    # A `java` in /bin must not open the whole file system.
    homes = [Path(home)] if home and Path(home).resolve() != Path("/") else []
    return [*PROGRAMS, *scripts, *homes]


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
