"""Run the flow `pilot_to_production` on the demo's server, and collect the results of its tasks.

Prefect reads its settings when it is imported: import this after `services.isolate`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect.client.schemas import State, TaskRun
from prefect.tasks import Task

from prefect_stagegate.errors import GateFailed
from prefect_stagegate.flows import pilot_to_production
from prefect_stagegate.model import Decision, Promotion, Version
from prefect_stagegate.tasks import check_readiness, promote_dataset, stage_dataset


@dataclass(frozen=True, slots=True)
class Passage:
    """The results of one run's tasks, in order."""

    staged: list[Version] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    moved: list[Promotion] = field(default_factory=list)


class Passages:
    """Runs the flow and collects its tasks' results by Prefect's hooks. Make only one: hooks are never removed."""

    def __init__(self) -> None:
        self._passage = Passage()
        for task in (stage_dataset, check_readiness, promote_dataset):
            task.on_completion(self._remember)
            task.on_failure(self._remember)  # a refused check failed, and has its decision as its result

    def run(self, *, spec: Path | None = None, version: str | None = None) -> Passage:
        """Run the flow. A gate's refusal is a result and raises nothing.

        Raises:
            StagegateError: The flow failed for another reason.
        """
        self._passage = Passage()
        with suppress(GateFailed):
            pilot_to_production(spec=spec, version=version)
        return self._passage

    def _remember(self, task: Task[..., Any], run: TaskRun, state: State[Any]) -> None:
        del task, run
        result = state.result(raise_on_failure=False)
        if isinstance(result, Version):
            self._passage.staged.append(result)
        elif isinstance(result, Decision):
            self._passage.decisions.append(result)
        elif isinstance(result, Promotion):
            self._passage.moved.append(result)
