"""A delivery by each of the operators; its parameter names the spec."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_stagegate.approval import StagegateApprovalOperator
from airflow_provider_stagegate.assets import create_asset
from airflow_provider_stagegate.operators import (
    StagegateCheckOperator,
    StagegatePromoteOperator,
    StagegateStageOperator,
)

retrying = {"retries": 2, "retry_delay": timedelta(seconds=1)}
production = create_asset(dataset="nycflights", target="production")

with DAG("deliver", schedule=None, params={"spec": ""}, default_args=retrying):
    stage = StagegateStageOperator(task_id="stage", source="{{ params.spec }}", deferrable=True)
    check = StagegateCheckOperator(
        task_id="check", version=stage.output["version"], gate="production", wait_for_approval=False
    )
    approve = StagegateApprovalOperator(task_id="approve", version=check.output["version"], to="production")
    promote = StagegatePromoteOperator(
        task_id="promote",
        version=check.output["version"],
        to="production",
        outlets=[production],
        approval_timeout=timedelta(0),
    )
    check >> approve >> promote

with DAG("bring", schedule=None, params={"spec": ""}, default_args=retrying):
    StagegateStageOperator(task_id="worker", source="{{ params.spec }}", deferrable=False)
    StagegateStageOperator(task_id="triggerer", source="{{ params.spec }}", deferrable=True)
