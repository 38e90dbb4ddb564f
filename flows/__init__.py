"""Prefect flows, made of the tasks of this package.

    stage → (stagegate.version.staged) → pilot_to_production        refresh, sweep: keep a node's cache current, intact
    stage_fleet → stage_node on each node → the ref on all of them

Deployments name them by module: `prefect_stagegate.flows.stage:stage`.
"""

from prefect_stagegate.flows.pilot_to_production import pilot_to_production
from prefect_stagegate.flows.refresh import refresh
from prefect_stagegate.flows.stage import stage
from prefect_stagegate.flows.stage_fleet import stage_fleet
from prefect_stagegate.flows.stage_node import stage_node
from prefect_stagegate.flows.sweep import sweep

__all__ = ["pilot_to_production", "refresh", "stage", "stage_fleet", "stage_node", "sweep"]
