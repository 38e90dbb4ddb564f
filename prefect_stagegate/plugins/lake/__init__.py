"""Lakehouse tables: Delta Lake and Apache Iceberg."""
