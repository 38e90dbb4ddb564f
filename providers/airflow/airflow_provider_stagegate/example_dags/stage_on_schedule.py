"""Stage a delivery every hour. What was fetched before is not fetched again."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG

from airflow_provider_stagegate.assets import create_asset
from airflow_provider_stagegate.operators import StagegateStageOperator

with DAG(
    "stage_on_schedule",
    schedule="@hourly",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    # Two runs at a time would wait for one another.
    max_active_runs=1,
    params={"spec": "/etc/stagegate/nycflights.yaml"},
    tags=["stagegate"],
) as dag:
    StagegateStageOperator(
        task_id="stage",
        source="{{ params.spec }}",
        deferrable=True,
        # No event comes for a delivery that is no new version.
        skip_unchanged=True,
        outlets=[create_asset(dataset="nycflights", target="latest")],
        retries=3,
    )
