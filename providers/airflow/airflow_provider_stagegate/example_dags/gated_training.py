"""Train when a version reached production, and on nothing else.

`pilot_to_production` promotes it; the event of its asset starts this DAG and carries the digest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_stagegate.assets import create_asset

production = create_asset(dataset="nycflights", target="production")

with DAG("gated_training", schedule=[production], catchup=False, tags=["stagegate"]) as dag:

    @task
    def promoted_version(triggering_asset_events: Any = None) -> str:
        """The version whose promotion started this run; the newest when there were several."""
        return f"nycflights@{triggering_asset_events[production][-1].extra['digest']}"

    # The version of the event is held, and no other, also when the ref has moved on since.
    @task.require_ready("{{ ti.xcom_pull(task_ids='promoted_version') }}")
    def train(path: Path, digest: str) -> dict[str, Any]:
        """Read the version's files, which stay on the node until this function returns."""
        files = [file for file in path.rglob("*") if file.is_file()]
        return {"digest": digest, "files": len(files), "bytes": sum(file.stat().st_size for file in files)}

    promoted_version() >> train()
