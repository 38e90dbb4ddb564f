"""A flow of your own with one of our tasks in it: the data lies beside the GPU, verified, before training starts.

python one_task_in_your_flow.py nycflights.yaml

It works with every task runner of Prefect: `nightly_training.with_options(task_runner=DaskTaskRunner())`.
"""

import sys

from prefect import flow, task

from prefect_stagegate.model import Version
from prefect_stagegate.tasks import stage_dataset


@task
def train(data: Version) -> int:
    """Stand for a training: here it only counts bytes."""
    return sum(file.stat().st_size for file in data.path.rglob("*") if file.is_file())


@flow
def nightly_training(spec: str) -> int:
    """Train on the newest data."""
    data = stage_dataset.submit(spec).result()
    return train.submit(data).result()


if __name__ == "__main__":
    print(f"trained on {nightly_training(sys.argv[1])} bytes")
