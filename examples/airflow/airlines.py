"""One DAG brings each delivery to production, if its gate accepts it. The other begins on what production accepted."""

from datetime import UTC, datetime
from pathlib import Path

from airflow.sdk import DAG, task

from airflow_provider_stagegate.assets import create_asset
from airflow_provider_stagegate.operators import StagegatePromoteOperator, StagegateStageOperator

SPEC = Path(__file__).resolve().with_name("airlines.yaml")
ACCEPTED = create_asset(dataset="airlines", target="production")

with DAG("airlines", schedule="@hourly", start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False) as deliver:
    stage = StagegateStageOperator(task_id="stage", source=str(SPEC))
    StagegatePromoteOperator(
        task_id="production", version=stage.output["version"], to="production", outlets=[ACCEPTED], skip_unchanged=True
    )

with DAG("airlines_report", schedule=[ACCEPTED], catchup=False) as report:

    @task.require_ready("airlines@production")
    def count(path: Path) -> int:
        """The airlines of the version that production names, which stays on this node meanwhile."""
        return sum(len(file.read_text().splitlines()) - 1 for file in path.glob("*.csv"))

    count()
