"""Take one version from its delivery to production; people answer in Airflow before it goes there.

The promotion's asset event starts `gated_training` with the digest.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_stagegate.approval import StagegateApprovalOperator
from airflow_provider_stagegate.assets import create_asset
from airflow_provider_stagegate.operators import StagegatePromoteOperator, StagegateStageOperator

with DAG(
    "pilot_to_production",
    schedule=None,
    max_active_runs=1,
    params={"spec": "/etc/stagegate/nycflights.yaml"},
    default_args={"retries": 3},
    tags=["stagegate"],
) as dag:
    stage = StagegateStageOperator(task_id="stage", source="{{ params.spec }}", deferrable=True)
    version = stage.output["version"]
    pilot = StagegatePromoteOperator(task_id="pilot", version=version, to="pilot", deferrable=True)
    approval = StagegateApprovalOperator(task_id="approval", version=version, to="production")
    production = StagegatePromoteOperator(
        task_id="production",
        version=version,
        to="production",
        deferrable=True,
        # No training starts for a version that is in production already.
        skip_unchanged=True,
        outlets=[create_asset(dataset="nycflights", target="production")],
    )
    pilot >> approval >> production
