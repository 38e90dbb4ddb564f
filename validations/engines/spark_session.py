"""The one import of Spark: starts a session in this process' confinement, or joins the operator's cluster.

The operator says where Spark runs, by the setting `STAGEGATE_SPARK`; a spec never does. Without it, Spark runs in a
JVM of this process: it listens on the loopback interface only, holds a bounded heap, and writes to the scratch folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prefect_stagegate.validations.queries.duck import MEMORY_MIB, THREADS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

VARIABLE = "STAGEGATE_SPARK"
HEAP_MIB = max(1024, MEMORY_MIB)
"""MiB of the JVM's heap. Spark keeps 300 MiB of it for itself, so it needs more than DuckDB."""
LOOPBACK = "127.0.0.1"


def open_session(scratch: Path) -> SparkSession:
    """The session in which tables are judged.

    Args:
        scratch: An empty folder for what does not fit into memory.

    Raises:
        RuntimeError: There is no Java, or the cluster is away. It names no address.
    """
    from pyspark.sql import SparkSession

    address = os.environ.get(VARIABLE, "") or f"local[{THREADS}]"
    builder = SparkSession.builder.appName("stagegate")
    builder = builder.remote(address) if address.startswith("sc://") else builder.master(address)
    local = address.startswith("local")
    for name, value in {**_COMMON, **(_local(scratch) if local else {})}.items():
        builder = builder.config(name, value)
    try:
        return builder.getOrCreate()
    except Exception as error:
        # Spark's own message may quote the address, which may hold a token.
        advice = "install a Java 17 or 21, on the PATH or in JAVA_HOME" if local else f"look at {VARIABLE}"
        raise RuntimeError(f"Spark did not start: {advice}") from error


_COMMON = {
    "spark.sql.session.timeZone": "UTC",
    # A query may name tables, and no files.
    "spark.sql.runSQLOnFiles": "false",
    "spark.sql.shuffle.partitions": str(2 * THREADS),
}


def _local(scratch: Path) -> Mapping[str, str]:
    """The settings of a JVM of our own."""
    java = f"-Djava.io.tmpdir={scratch} -Duser.home={scratch} -Djava.net.preferIPv4Stack=true -XX:-UsePerfData"
    return {
        "spark.driver.memory": f"{HEAP_MIB}m",
        "spark.driver.bindAddress": LOOPBACK,
        "spark.driver.host": LOOPBACK,
        "spark.driver.extraJavaOptions": java,
        "spark.local.dir": str(scratch / "spark"),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.catalogImplementation": "in-memory",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
    }
