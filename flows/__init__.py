"""Prefect flows: tasks put together, and nothing else."""
