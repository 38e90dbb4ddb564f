"""Spark, as an engine of contracts."""
