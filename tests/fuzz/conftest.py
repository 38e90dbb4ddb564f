"""The fixtures of fuzzers."""

from fuzzing.fixtures import scratch, soon

__all__ = ["scratch", "soon"]
