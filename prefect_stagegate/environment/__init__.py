"""The environment that a version is judged in: captured, written down, and compared with another.

Each module has groups of facts: how to find them, and how much a difference weighs.
"""

from prefect_stagegate.environment.difference import ABSENT, UNKNOWN, EnvironmentDifference, Weight
from prefect_stagegate.environment.record import DECLARED, Environment, capture, compare

__all__ = ["ABSENT", "DECLARED", "UNKNOWN", "Environment", "EnvironmentDifference", "Weight", "capture", "compare"]
