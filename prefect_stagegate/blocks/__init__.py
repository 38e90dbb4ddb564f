"""Prefect blocks for a cache, a catalog and sources, and the storage options in any credentials block.

This is the `prefect.collections` entry point. The server and workers import it at their start, so it must import fast.
"""

from prefect_stagegate.blocks.options import options_of, storage_options
from prefect_stagegate.blocks.places import StagegateCache, StagegateCatalog, StagegateSource

__all__ = ["StagegateCache", "StagegateCatalog", "StagegateSource", "options_of", "storage_options"]
