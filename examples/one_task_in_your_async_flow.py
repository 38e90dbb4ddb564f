"""An async flow of your own with one of our tasks in it: while the bytes move, the event loop serves everybody else.

python one_task_in_your_async_flow.py nycflights.yaml

Each task here has its twin for async flows, with an `a` before its name. Awaited as below it runs in this process; what
is submitted, as the counting is, runs where the flow's task runner says.
"""

import asyncio
import sys

from prefect import flow, task

from prefect_stagegate.model import Version
from prefect_stagegate.tasks import astage_dataset


@task
async def load_model() -> str:
    """Stand for work that goes on meanwhile."""
    await asyncio.sleep(0.1)
    return "a model"


@task
def train(model: str, data: Version) -> int:
    """Stand for a training: here it only counts bytes."""
    return sum(file.stat().st_size for file in data.path.rglob("*") if model and file.is_file())


@flow
async def nightly_training(spec: str) -> int:
    """Train on the newest data."""
    data, model = await asyncio.gather(astage_dataset(spec), load_model())
    training = train.submit(model, data)
    return await asyncio.to_thread(training.result)  # which blocks until it is there


if __name__ == "__main__":
    print(f"trained on {asyncio.run(nightly_training(sys.argv[1]))} bytes")
