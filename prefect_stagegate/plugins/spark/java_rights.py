"""What Spark needs between Python and Java: programs, TCP, and more files than other engines."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from prefect_stagegate.validations.worker.confinement import Rights

SYSTEM = (
    # whose name Hadoop asks for, and the address of `localhost`
    *("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/hosts", "/etc/host.conf", "/etc/resolv.conf"),
    *("/proc/self", "/proc/sys/net/core/somaxconn", "/proc/net", "/sys/fs/cgroup"),
    # what Java's settings and certificates are linked to
    *("/etc/java-17-openjdk", "/etc/java-21-openjdk", "/etc/ssl/certs"),
)
"""More that a JVM reads."""
PROGRAMS = ("/bin", "/usr/bin", "/lib", "/lib64", "/usr/lib", "/usr/lib64")
"""Where Java and the shell lie that starts it."""
FILES = ("SPARK_CONF_DIR", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")
"""Variables that name what Spark reads: its settings of a cluster, and the authorities of a server's certificate."""
VARIABLES = ("JAVA_HOME", "STAGEGATE_SPARK", "SPARK_CONNECT_AUTHENTICATE_TOKEN", "SPARK_LOCAL_IP", *FILES)
"""More for Spark: where Java and the cluster are, and the token for it, which only its own child gets."""


def _reads() -> list[str | Path]:
    return [*SYSTEM, *filter(None, map(os.environ.get, FILES))]


def _programs() -> list[str | Path]:
    """The folders from which Spark and Java are started."""
    program = shutil.which("java")
    # `java` may be a link to <JDK>/bin/java.
    home = os.environ.get("JAVA_HOME") or (Path(program).resolve().parent.parent if program else "")
    spark = importlib.util.find_spec("pyspark")
    scripts = [Path(spark.origin).parent / "bin"] if spark and spark.origin else []
    # A `java` in /bin must not open the whole file system.
    homes = [Path(home)] if home and Path(home).resolve() != Path("/") else []
    return [*PROGRAMS, *scripts, *homes]


JAVA = Rights(
    VARIABLES,
    _reads,
    _programs,
    note=" for files; programs and TCP are open, which Spark needs",
    unconfined="none: Landlock is not available, so only Spark's settings hold",
)
