"""Queries by DuckDB that measure rows: bounded in memory and time, and locked to given folders."""
