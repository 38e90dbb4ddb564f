"""The flow `stage`: fetch a dataset into this node's cache."""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from prefect_stagegate.model import Version
from prefect_stagegate.tasks._support.running import CacheLike, CatalogLike, SpecParameter, short_name
from prefect_stagegate.tasks.stage_dataset import stage_dataset


@flow(name="stagegate-stage", flow_run_name=lambda: f"stage {short_name(flow_run.parameters['spec_or_ref'])}")
def stage(spec_or_ref: SpecParameter, cache: CacheLike = None, catalog: CatalogLike = None) -> Version:
    """Make a version from a spec, or fetch an existing version to this node.

    A new version emits `stagegate.version.staged`, which may start `pilot_to_production`.

    Args:
        spec_or_ref: A spec's path or URL, a spec as a dictionary, `nycflights@production`, or `nycflights@sha256:…`.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.
    """
    return stage_dataset(spec_or_ref, cache=cache, catalog=catalog)
