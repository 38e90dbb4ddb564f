"""Spark, as an engine of contracts."""

from prefect_stagegate.doors import Engine, Plugin

SPARK = Engine(
    f"{__name__}.spark_engine:SparkEngine",
    library="pyspark",
    install='Install it, beside a Java 17 or 21: pip install "prefect-stagegate[spark]"',
    rights=f"{__name__}.java_rights:JAVA",
)
PLUGIN = Plugin(engines={"spark": SPARK}, settings=f"{__name__}.spark_settings:SparkSettings")
