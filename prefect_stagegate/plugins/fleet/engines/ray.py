"""Nodes as Ray nodes, each with a resource of its name: `ray start --address HEAD --resources '{"NODE": 1}'`."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from types import ModuleType
from typing import Any

from prefect_stagegate.errors import MissingExtra, SourceUnavailable, install_hint
from prefect_stagegate.plugins.fleet.barrier import NodeReport
from prefect_stagegate.plugins.fleet.engines.fleet_engine import ANSWER_SECONDS, NodeJob, failed, lost, run_job
from prefect_stagegate.sources.wrappers.timeout import call_with_timeout

SHARE = 0.001
"""The part of a node's resource that a job takes, so that jobs of several stagings run side by side."""
BUILT_IN = ("CPU", "GPU", "memory", "object_store_memory", "node:", "accelerator_type:")
"""The beginnings of Ray's own resources."""


class RayEngine:
    """Runs jobs as Ray tasks, each bound to its node by the node's resource.

    Args:
        ray: Ray's module, connected to a cluster.
        lost_after: Seconds after which a node that Ray doesn't have alive is lost.
    """

    def __init__(self, ray: ModuleType, lost_after: float) -> None:
        self._ray, self._lost_after = ray, lost_after
        self._references: dict[str, Any] = {}
        self._seen: dict[str, float] = {}

    def nodes(self) -> list[str]:
        """The nodes that are alive, by the resources that somebody gave them.

        Raises:
            SourceUnavailable: The cluster did not answer in time.
        """
        try:
            nodes = call_with_timeout(self._ray.nodes, ANSWER_SECONDS)
        except TimeoutError as error:
            raise SourceUnavailable(
                "The Ray cluster does not answer any more", hint="The log of its head, gcs_server.out, says why."
            ) from error
        resources = {name for node in nodes if node["Alive"] for name in node["Resources"]}
        return sorted(name for name in resources if not name.startswith(BUILT_IN))

    def start(self, jobs: Mapping[str, NodeJob]) -> None:
        """Submit a job to each node."""
        self._seen = dict.fromkeys(jobs, time.monotonic())
        # Never again by itself: a killed job is reported, and the next run starts it again.
        remote = self._ray.remote(run_job)
        self._references = {
            node: remote.options(resources={node: SHARE}, num_cpus=0, max_retries=0).remote(job)
            for node, job in jobs.items()
        }

    def poll(self) -> Iterator[tuple[str, NodeReport]]:
        """The nodes whose jobs ended, or that are gone."""
        now = time.monotonic()
        self._seen |= dict.fromkeys(self.nodes(), now)
        waiting = {reference: node for node, reference in self._references.items()}
        ended, _ = self._ray.wait(list(waiting), num_returns=len(waiting), timeout=0) if waiting else ([], [])
        for reference in ended:
            node = waiting[reference]
            del self._references[node]
            yield node, self._report(node, reference)
        for node in list(self._references):
            if now - self._seen[node] > self._lost_after:
                yield (
                    node,
                    lost(node, f"Ray has no living node with this resource since {now - self._seen[node]:.0f} s"),
                )

    def cancel(self, nodes: Iterable[str]) -> None:
        """Interrupt jobs that run, and let none start later."""
        for node in nodes:
            if reference := self._references.pop(node, None):
                self._ray.cancel(reference)

    def _report(self, node: str, reference: Any) -> NodeReport:
        try:
            report = self._ray.get(reference)
        except Exception as error:  # noqa: BLE001 - whatever the job's process died of
            # The first line: Ray's messages hold the traceback of the node.
            return failed(node, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
        return report if isinstance(report, NodeReport) else failed(node, "its job ended without a report")


@contextmanager
def ray_engine(address: str, lost_after: float) -> Iterator[RayEngine]:
    """An engine on a Ray cluster.

    Raises:
        MissingExtra: Ray is not installed.
        SourceUnavailable: The cluster does not answer.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("Ray is not installed", hint=install_hint("ray")) from error
    # A flow on Ray's task runner is connected already.
    mine = not ray.is_initialized()
    if mine:
        connect = partial(ray.init, address=address, log_to_driver=False, configure_logging=False)
        host, _, port = address.rpartition("/")[2].rpartition(":")
        try:
            if host and port.isdecimal():  # else Ray would wait without end for one who never listens
                place = host.strip("[]"), int(port)
                socket.create_connection(place, timeout=ANSWER_SECONDS).close()  # noqa: TID251 - it sends nothing
            call_with_timeout(connect, 6 * ANSWER_SECONDS)  # it begins processes
        except (OSError, RuntimeError, ValueError) as error:  # TimeoutError is an OSError
            raise SourceUnavailable(
                f"The Ray cluster {address} did not answer: {str(error) or 'timed out'}",
                hint="Check its address and that it runs.",
            ) from error
    try:
        yield RayEngine(ray, lost_after)
    finally:
        if mine:
            # A cluster that does not answer holds it.
            with suppress(TimeoutError):
                call_with_timeout(ray.shutdown, ANSWER_SECONDS)
