"""The flow `stage`: bring a dataset into this node's cache."""

from __future__ import annotations

from prefect import flow

from prefect_stagegate.model import Version
from prefect_stagegate.tasks.places import CacheLike, CatalogLike, SpecParameter
from prefect_stagegate.tasks.stage_dataset import stage_dataset


@flow(name="stagegate-stage")
def stage(spec_or_ref: SpecParameter, cache: CacheLike = None, catalog: CatalogLike = None) -> Version:
    """Make a version from a spec, or bring an existing version to this node.

    A version that is new emits `stagegate.version.staged`, which may start `pilot_to_production`.

    Args:
        spec_or_ref: A spec's path or URL, a spec as a dictionary, `nycflights@production`, or `nycflights@sha256:…`.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.
    """
    return stage_dataset(spec_or_ref, cache=cache, catalog=catalog)
