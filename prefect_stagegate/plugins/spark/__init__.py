"""Spark, as an engine of contracts."""

from prefect_stagegate.doors import Plugin

PLUGIN = Plugin(settings=f"{__name__}.spark_settings:SparkSettings")
