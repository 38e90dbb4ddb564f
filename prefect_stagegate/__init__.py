"""Prefect tasks and flows that stage data beside the GPUs, prove it, and gate production on readiness."""

__version__ = "0.1.0"
