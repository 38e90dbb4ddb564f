"""How all of these tasks run: uncached, retried once when the engine says that it may help, with readable names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import State, TaskRun
from prefect.tasks import exponential_backoff

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.spec import Spec

RETRY_SECONDS = 10
"""About how long a task waits before its second try; the engine retried each object for a while already."""
SHORT_DIGEST = 19

P = ParamSpec("P")
R = TypeVar("R")


def may_help(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether another try may help: the engine's judgement and nothing else."""
    del task, run
    return isinstance(state.data, StagegateError) and state.data.retryable


def run_options(run_name: Callable[[Mapping[str, Any]], str]) -> dict[str, Any]:
    """What all of our tasks tell Prefect about how they run.

    A record of an earlier run says nothing about what lies on this node, so nothing is cached by Prefect; the engine
    finds out by itself what it need not do again.

    Args:
        run_name: Says what a run does, from its parameters.
    """

    def named(parameters: dict[str, Any]) -> str:  # Prefect looks for this parameter's name
        return run_name(parameters)

    return {
        "tags": {"stagegate"},
        "task_run_name": named,
        "cache_policy": NO_CACHE,
        "retries": 1,
        "retry_delay_seconds": exponential_backoff(RETRY_SECONDS),
        "retry_jitter_factor": 0.5,
        "retry_condition_fn": may_help,
    }


def engine_task(run_name: Callable[[Mapping[str, Any]], str]) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a Prefect task of a function that does one job of the engine, named as `run_options` says."""
    return lambda function: Task(function, **run_options(run_name))


def spoken(named: Any) -> str:
    """What a user named, short enough for a run's name.

    >>> spoken("specs/nycflights.yaml"), spoken("nycflights@production"), spoken({"dataset": "nycflights"})
    ('nycflights', 'nycflights@production', 'nycflights')
    """
    if isinstance(named, Spec):
        return named.dataset
    if isinstance(named, Mapping):
        return str(named.get("dataset", "a spec"))
    text = str(named)
    dataset, at, ref = text.partition("@")
    if at and "/" not in text:
        return f"{dataset}@{ref[:SHORT_DIGEST]}"
    return Path(text.partition("?")[0]).stem
