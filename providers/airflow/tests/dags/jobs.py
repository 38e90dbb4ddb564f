"""DAGs of one or two tasks, for the tests."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Asset

from airflow_provider_stagegate.operators import (
    StagegateCheckOperator,
    StagegatePromoteOperator,
    StagegateRequireReadyOperator,
    StagegateStageOperator,
    StagegateWatchOperator,
)

with DAG("staging", schedule=None, params={"source": ""}) as staging:
    StagegateStageOperator(
        task_id="stage",
        source="{{ params.source }}",
        deferrable=True,
        outlets=[Asset("stagegate://tiny/latest")],
        retries=1,
        retry_delay=timedelta(0),
    )

with DAG("checking", schedule=None, params={"gate": "pilot"}) as checking:
    StagegateCheckOperator(
        task_id="check",
        version="tiny",
        gate="{{ params.gate }}",
        wait_for_approval=False,
        retries=3,
        retry_delay=timedelta(0),
    )

with DAG("promoting", schedule=None, params={"to": "pilot"}) as promoting:
    StagegatePromoteOperator(
        task_id="promote",
        version="tiny",
        to="{{ params.to }}",
        deferrable=True,
        approval_timeout=timedelta(seconds=20),
        poke_interval=0.5,
        outlets=[Asset("stagegate://tiny/production")],
    )

with DAG("changing", schedule=None, params={"source": ""}) as changing:
    StagegateStageOperator(task_id="stage", source="{{ params.source }}", skip_unchanged=True)
    StagegatePromoteOperator(task_id="promote", version="tiny", to="pilot", skip_unchanged=True)

for name, deferrable in (("retried", False), ("resumed", True)):
    with DAG(
        name, schedule=None, params={"source": ""}, default_args={"retries": 1, "retry_delay": timedelta(0)}
    ) as dag:
        stage = StagegateStageOperator(
            task_id="stage", source="{{ params.source }}", skip_unchanged=True, deferrable=deferrable
        )
        promote = StagegatePromoteOperator(
            task_id="promote", version="tiny", to="pilot", skip_unchanged=True, deferrable=deferrable
        )
        stage >> promote
    globals()[name] = dag

with DAG("requiring", schedule=None, params={"version": "tiny@pilot"}) as requiring:
    StagegateRequireReadyOperator(task_id="ready", version="{{ params.version }}", deferrable=True)

with DAG("watching", schedule=None) as watching:
    StagegateWatchOperator(task_id="watch", targets=["tiny@pilot"])

with DAG("impatient", schedule=None) as impatient:
    StagegatePromoteOperator(
        task_id="promote", version="tiny", to="production", approval_timeout=timedelta(seconds=1), retries=3
    )
