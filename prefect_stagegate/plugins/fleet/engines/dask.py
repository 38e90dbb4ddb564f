"""Nodes as named workers of a Dask cluster: `dask worker SCHEDULER --name NODE --no-nanny`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from prefect_stagegate.errors import MissingExtra, SourceUnavailable, install_hint
from prefect_stagegate.plugins.fleet.barrier import NodeReport
from prefect_stagegate.plugins.fleet.engines.fleet_engine import ANSWER_SECONDS, NodeJob, failed, lost, run_job

if TYPE_CHECKING:
    from distributed import Client, Future


class DaskEngine:
    """Runs jobs as futures, each bound to its node's worker.

    A job that runs can't be stopped: it goes on until the version is there, and moves no ref.

    Args:
        client: A client of the cluster's scheduler.
        lost_after: Seconds after which a node whose worker the scheduler doesn't know is lost.
    """

    def __init__(self, client: Client, lost_after: float) -> None:
        self._client, self._lost_after = client, lost_after
        self._unsubmitted: dict[str, NodeJob] = {}
        self._futures: dict[str, Future[NodeReport]] = {}
        self._addresses: dict[str, str] = {}
        """The workers that jobs were submitted to, by node."""
        self._seen: dict[str, float] = {}

    def nodes(self) -> list[str]:
        """The names of the cluster's workers."""
        return sorted(self._workers())

    def start(self, jobs: Mapping[str, NodeJob]) -> None:
        """Submit a job to each node's worker. One whose worker is not there waits for it."""
        self._seen = dict.fromkeys(jobs, time.monotonic())
        self._unsubmitted = dict(jobs)
        self._submit(self._workers())

    def poll(self) -> Iterator[tuple[str, NodeReport]]:
        """The nodes whose jobs ended, or whose worker is gone."""
        workers, now = self._workers(), time.monotonic()
        self._submit(workers)
        # A worker that was started anew has another address: the job of the old one never ends.
        alive = (node for node, address in self._addresses.items() if workers.get(node) == address)
        self._seen |= dict.fromkeys(alive, now)
        for node in [*self._futures, *self._unsubmitted]:
            future = self._futures.get(node)
            # A future's status lags behind a worker's death, so the list of workers decides about those that wait.
            if future and future.status not in ("pending", "lost"):
                del self._futures[node]
                yield node, _report(node, future)
            elif now - self._seen[node] > self._lost_after:
                yield node, lost(node, f"the scheduler has no worker of this name since {now - self._seen[node]:.0f} s")

    def cancel(self, nodes: Iterable[str]) -> None:
        """Let no job start later."""
        futures = []
        for node in nodes:
            self._unsubmitted.pop(node, None)
            if future := self._futures.pop(node, None):
                futures.append(future)
        self._client.cancel(futures)  # type: ignore[no-untyped-call]

    def _workers(self) -> dict[str, str]:
        """The addresses of the cluster's workers by their names.

        Raises:
            SourceUnavailable: The scheduler did not answer in time.
        """
        scheduler: Any = self._client.scheduler
        try:
            # `Client.scheduler_info` waits without end, and gives old workers where it failed.
            identity: Any = self._client.sync(  # type: ignore[no-untyped-call]
                scheduler.identity, n_workers=-1, callback_timeout=ANSWER_SECONDS
            )
        except (OSError, AttributeError) as error:  # a closed client has no scheduler
            raise SourceUnavailable(
                "The Dask scheduler does not answer any more", hint="The scheduler's log says why."
            ) from error
        return {str(worker["name"]): address for address, worker in identity["workers"].items()}

    def _submit(self, workers: Mapping[str, str]) -> None:
        """Submit the jobs whose worker is there."""
        for node in workers.keys() & self._unsubmitted.keys():
            self._addresses[node] = workers[node]
            self._futures[node] = self._client.submit(
                run_job,
                self._unsubmitted.pop(node),
                key=f"stagegate-{node}-{uuid4().hex}",
                # Not by its name: the scheduler takes one that it doesn't know for a host's, and chose another worker.
                workers=[workers[node]],
                allow_other_workers=False,
                pure=False,
            )


@contextmanager
def dask_engine(scheduler: str, lost_after: float) -> Iterator[DaskEngine]:
    """An engine on a Dask cluster.

    Raises:
        MissingExtra: Dask is not installed.
        SourceUnavailable: The scheduler does not answer.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingExtra("Dask is not installed", hint=install_hint("dask")) from error
    try:
        client = Client(scheduler, timeout=ANSWER_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise SourceUnavailable(
            f"The Dask scheduler {scheduler} did not answer: {error}", hint="Check its address and that it runs."
        ) from error
    with client:
        yield DaskEngine(client, lost_after)


def _report(node: str, future: Future[NodeReport]) -> NodeReport:
    try:
        return future.result(timeout=ANSWER_SECONDS)
    except Exception as error:  # noqa: BLE001 - whatever the job's process died of
        return failed(node, f"{type(error).__name__}: {error}")
