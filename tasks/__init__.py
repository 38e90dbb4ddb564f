"""Prefect tasks, one step of the way each; every one can be imported alone.

Whole jobs with good defaults, and below them the small steps of staging:

    stage_dataset → validate_dataset → check_readiness → promote_dataset → require_ready
    list_sources → plan_transfer → transfer → publish_version

`cache` and `catalog` take a block, a path or URL, or nothing, which means the STAGEGATE_* settings. What tasks return
is small and can be pickled. Each has a module of its own name; what they share lies in `places` (where they work),
`running` (how they run), `telling` (what they log, emit and attach), `progress` and `verdict`.
"""

from prefect_stagegate.tasks.check_readiness import check_readiness
from prefect_stagegate.tasks.collect_garbage import collect_garbage
from prefect_stagegate.tasks.held_refs import held_refs
from prefect_stagegate.tasks.list_sources import list_sources
from prefect_stagegate.tasks.plan_transfer import plan_transfer
from prefect_stagegate.tasks.promote_dataset import promote_dataset
from prefect_stagegate.tasks.publish_version import publish_version
from prefect_stagegate.tasks.require_ready import require_ready
from prefect_stagegate.tasks.stage_dataset import stage_dataset
from prefect_stagegate.tasks.transfer import transfer
from prefect_stagegate.tasks.validate_dataset import validate_dataset
from prefect_stagegate.tasks.verify_cache import verify_cache

__all__ = [
    "check_readiness",
    "collect_garbage",
    "held_refs",
    "list_sources",
    "plan_transfer",
    "promote_dataset",
    "publish_version",
    "require_ready",
    "stage_dataset",
    "transfer",
    "validate_dataset",
    "verify_cache",
]
