"""Train when a version reached production, and on nothing else.

`pilot_to_production` promotes it; the event of its asset starts this DAG and carries the digest. Whoever may write
events may write any digest, so the ref decides: a version that `production` doesn't name is not trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_stagegate.assets import create_asset

production = create_asset(dataset="nycflights", target="production")

with DAG("gated_training", schedule=[production], catchup=False, tags=["stagegate"]) as dag:

    @task
    def promoted_digest(triggering_asset_events: Any = None) -> str:
        """The digest whose promotion started this run; the newest when there were several."""
        return str(triggering_asset_events[production][-1].extra["digest"])

    # When the ref has moved on since, this fails, and the run of the later promotion trains.
    @task.require_ready("nycflights@production", digest="{{ ti.xcom_pull(task_ids='promoted_digest') }}")
    def train(path: Path, digest: str) -> dict[str, Any]:
        """Read the version's files, which stay on the node until this function returns."""
        files = [file for file in path.rglob("*") if file.is_file()]
        return {"digest": digest, "files": len(files), "bytes": sum(file.stat().st_size for file in files)}

    promoted_digest() >> train()
