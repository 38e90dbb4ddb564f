"""The environment that a version is judged in: captured, written down, and compared with another.

One module a group of facts; each says how it is found, and how much a difference weighs.
"""

from prefect_stagegate.environment.capture import capture
from prefect_stagegate.environment.difference import ABSENT, UNKNOWN, Difference, Weight
from prefect_stagegate.environment.record import DECLARED, Environment, compare

__all__ = ["ABSENT", "DECLARED", "UNKNOWN", "Difference", "Environment", "Weight", "capture", "compare"]
