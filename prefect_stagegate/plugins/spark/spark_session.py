"""The one import of Spark: starts a session in this process' confinement, or joins the operator's cluster.

The operator says where Spark runs, by the setting `STAGEGATE_SPARK`; a spec never does. Without it, Spark runs in a
JVM of this process: it listens on the loopback interface only, holds a bounded heap, and writes to the scratch folder.
With a `spark://` master, that JVM is the driver, and listens where the cluster's workers reach it. With Spark Connect
(`sc://`) there is no JVM on this node.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from prefect_stagegate.validations.queries.duck import MEMORY_MIB, THREADS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

VARIABLE = "STAGEGATE_SPARK"
CONNECT = "sc://"
HEAP_MIB = max(1024, MEMORY_MIB)
"""MiB of the JVM's heap. Spark keeps 300 MiB of it for itself, so it needs more than DuckDB."""
LOOPBACK = "127.0.0.1"
START_SECONDS = 300.0
"""Seconds until Spark must have run a first task: a cluster may have to end other work before."""
ANSWER_SECONDS = 20.0
"""Seconds until a port of the cluster must answer; Spark itself would try Connect's for 10 minutes."""
PORTS = {"spark": 7077, "sc": 15002}
"""The port of an address that names none, by its scheme."""


def on_cluster() -> bool:
    """Whether other processes than this one's children read the tables, perhaps on other nodes."""
    return not _address().startswith("local")


def open_session(scratch: Path) -> SparkSession:
    """The session in which tables are judged; a cluster has run a task in it.

    Args:
        scratch: An empty folder for what does not fit into memory.

    Raises:
        RuntimeError: There is no Java, or the cluster is away or runs no task in time. It names no address.
    """
    if on_cluster():
        _require_answer(_address())
    threads = ThreadPoolExecutor(1)
    try:
        return threads.submit(_start, _address(), scratch).result(START_SECONDS)
    except TimeoutError:
        raise RuntimeError(f"Spark ran no task within {START_SECONDS:g} s: {_advice()}") from None
    except Exception as error:
        # Spark's own message may quote the address, which may hold a token.
        raise RuntimeError(f"Spark did not start: {_advice()}") from error
    finally:
        # A thread that waits for a cluster ends with the process.
        threads.shutdown(wait=False)


def _address() -> str:
    return os.environ.get(VARIABLE, "") or f"local[{THREADS}]"


def _require_answer(address: str) -> None:
    """Connect to one of the cluster's ports; a standalone cluster has one for each of its masters."""
    scheme, _, servers = address.partition("://")
    for server in servers.partition("/")[0].split(","):
        parts = urlsplit(f"//{server}")
        try:
            place = (parts.hostname or "", parts.port or PORTS[scheme])
            with socket.create_connection(place, ANSWER_SECONDS):  # noqa: TID251 - no HTTP, and the operator named it
                return
        except (OSError, ValueError) as error:
            reason = str(getattr(error, "strerror", None) or error)
    raise RuntimeError(f"The Spark cluster does not answer ({reason}): {_advice()}")


def _start(address: str, scratch: Path) -> SparkSession:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName("stagegate")
    if address.startswith(CONNECT):
        builder, settings = builder.remote(address), _COMMON
    else:
        builder, settings = builder.master(address), {**_COMMON, **_java(scratch, on_loopback=not on_cluster())}
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    if on_cluster():
        # A master without free workers would keep the first query of a table waiting for ever.
        session.range(1).count()
    return session


def _advice() -> str:
    if on_cluster():
        return f"look at {VARIABLE} and at the workers of the cluster"
    return "install a Java 17 or 21, on the PATH or in JAVA_HOME"


_COMMON = {
    "spark.sql.session.timeZone": "UTC",
    # A query may name tables, and no files.
    "spark.sql.runSQLOnFiles": "false",
    "spark.sql.shuffle.partitions": str(2 * THREADS),
    # Spark's defaults, which a cluster may have changed: rows that nobody looked at would pass.
    "spark.sql.files.ignoreMissingFiles": "false",
    "spark.sql.files.ignoreCorruptFiles": "false",
    # Statistics in a file are the word of whoever wrote it.
    "spark.sql.parquet.filterPushdown": "false",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "false",
}


def _java(scratch: Path, *, on_loopback: bool) -> Mapping[str, str]:
    """The settings of a JVM on this node: Spark as a whole, or the driver of a cluster."""
    java = f"-Djava.io.tmpdir={scratch} -Duser.home={scratch} -XX:-UsePerfData"
    loopback = {"spark.driver.bindAddress": LOOPBACK, "spark.driver.host": LOOPBACK} if on_loopback else {}
    return {
        **loopback,
        "spark.driver.memory": f"{HEAP_MIB}m",
        "spark.driver.extraJavaOptions": f"{java} -Djava.net.preferIPv4Stack=true" if on_loopback else java,
        "spark.local.dir": str(scratch / "spark"),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.catalogImplementation": "in-memory",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
    }
