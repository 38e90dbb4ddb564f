"""The barrier of a fleet: what each node reports, and whether the policy lets a ref move. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from prefect_stagegate.errors import UsageError
from prefect_stagegate.model import Verdict
from prefect_stagegate.units import count_text, digest_text

FleetPolicyLike = Literal["all", "best_effort"] | Mapping[str, int]
"""`all`, `best_effort`, or `{"quorum": 3}`."""
NAMED = 20
"""The most nodes that a message names."""


class NodeOutcome(StrEnum):
    """What became of a node's part."""

    READY = "ready"
    """It did what was asked, and proved it on its own disk."""
    FAILED = "failed"
    """It answered that it could not."""
    LOST = "lost"
    """It did not report in time, or its worker is gone."""


@dataclass(frozen=True, slots=True)
class NodeReport(Verdict, asks="outcome"):
    """What one node reports of one version, or what the coordinator says of a node without a report."""

    node: str
    outcome: NodeOutcome
    digest: str = ""
    """The version's digest, computed from the files that the node counted; empty unless it is ready."""
    files: int = 0
    """Files that were counted on the node's disk."""
    bytes: int = 0
    """Bytes of these files."""
    hashed: int = 0
    """Bytes that were read from the disk and hashed for the report."""
    fetched: int = 0
    """Bytes that were fetched."""
    seconds: float = 0.0
    problem: str = ""
    """Why it isn't ready."""
    flipped: bool = False
    """Whether the node's copy of the ref names the version."""


@dataclass(frozen=True, slots=True)
class FleetPolicy:
    """The number of ready nodes from which on the ref moves on the ready ones."""

    quorum: int | None
    """None: all of them."""
    text: str

    @classmethod
    def parse(cls, policy: FleetPolicyLike, nodes: int) -> FleetPolicy:
        """Read a policy for a number of nodes.

        Raises:
            UsageError: It is none, or its quorum can't be met by so many nodes.

        >>> FleetPolicy.parse({"quorum": 2}, 3).required(3), FleetPolicy.parse("all", 3).required(3)
        (2, 3)
        """
        if policy == "all":
            return cls(None, "all")
        if policy == "best_effort":
            return cls(1, "best_effort")
        quorum = policy.get("quorum") if set(policy) == {"quorum"} else None
        if type(quorum) is not int:
            raise UsageError(
                f"{policy!r} is no policy of a fleet", hint='Write "all", "best_effort" or {"quorum": NUMBER}.'
            )
        if not 1 <= quorum <= nodes:
            raise UsageError(f"A quorum of {quorum} of {count_text(nodes, 'node')} can't be met")
        return cls(quorum, f"quorum of {quorum}")

    def required(self, nodes: int) -> int:
        """How many of so many nodes must be ready."""
        return nodes if self.quorum is None else self.quorum


@dataclass(frozen=True, slots=True)
class FleetResult(Verdict, asks="is_met"):
    """A version on the nodes of a fleet."""

    dataset: str
    digest: str
    ref: str
    """The ref that moved on the nodes; empty for a version by digest, whose bytes are brought and no ref moves."""
    policy: str
    required: int
    """How many nodes the policy wants."""
    reports: tuple[NodeReport, ...]
    """One a node, sorted by name."""

    @property
    def ready(self) -> tuple[NodeReport, ...]:
        """The nodes that hold the version, proved."""
        return tuple(report for report in self.reports if report.outcome is NodeOutcome.READY)

    @property
    def missing(self) -> tuple[NodeReport, ...]:
        """The nodes that don't, or on which the ref did not move."""
        return tuple(report for report in self.reports if report.outcome is not NodeOutcome.READY)

    @property
    def is_met(self) -> bool:
        """Whether as many nodes are ready as the policy wants."""
        return len(self.ready) >= self.required

    @property
    def headline(self) -> str:
        """The result in one line."""
        moved = sum(report.flipped for report in self.reports)
        ref = f", and {self.ref} names it on {moved:,}" if self.ref else ""
        nodes = count_text(len(self.reports), "node")
        version = f"{self.dataset}@{digest_text(self.digest)}"
        return f"{version} is ready on {len(self.ready):,} of {nodes}{ref} (policy: {self.policy})"

    @property
    def text(self) -> str:
        """The headline, and a line for each node that isn't ready, up to 20."""
        lines = [f"  {report.node}: {report.outcome}: {report.problem}" for report in self.missing[:NAMED]]
        if len(self.missing) > NAMED:
            lines.append(f"  and {len(self.missing) - NAMED:,} more")
        return "\n".join([self.headline, *lines])


def checked_report(report: NodeReport, node: str, digest: str) -> NodeReport:
    """Take a node's report as it is, or as failed where it is another node's or about other bytes."""
    problem = ""
    if report.node != node:
        problem = f"the job ran on {report.node}: start the worker of {node} with STAGEGATE_NODE={node}"
    elif report.outcome is NodeOutcome.READY and report.digest != digest:
        problem = f"it holds {report.digest or 'nothing'}"
    return NodeReport(node, NodeOutcome.FAILED, problem=problem) if problem else report


def merged_reports(staged: Iterable[NodeReport], flips: Sequence[NodeReport]) -> tuple[NodeReport, ...]:
    """The reports of both rounds as one a node: a node is ready when it holds the version and its ref moved."""
    by_node = {report.node: report for report in staged}
    for flip in flips:
        report = by_node[flip.node]
        facts = {"digest": report.digest, "files": report.files, "bytes": report.bytes, "hashed": report.hashed}
        problem = f"{flip.problem}; it did not prove that the ref moved" if flip.problem else ""
        by_node[flip.node] = NodeReport(
            flip.node,
            flip.outcome,
            **facts,  # type: ignore[arg-type]
            fetched=report.fetched,
            seconds=round(report.seconds + flip.seconds, 2),
            problem=problem,
            flipped=flip.flipped,
        )
    return tuple(sorted(by_node.values(), key=lambda report: report.node))
