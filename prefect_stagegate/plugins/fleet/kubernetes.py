"""Tells Kubernetes which refs are ready on this node: a label and a condition of its Node for each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from prefect_stagegate.clock import moment, now
from prefect_stagegate.errors import CorruptRecord, SourceError, UnknownDataset, UnknownRef, UnprovedEntry
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.fleet.kubernetes_api import NodeApi
from prefect_stagegate.plugins.fleet.node_readiness import NodeReadiness, node_readiness
from prefect_stagegate.units import count_text
from prefect_stagegate.workspace import Workspace

PREFIX = "stagegate.io/"
"""Begins every label and condition of this package."""
VALUE_PREFIX = "sha256-"
"""Begins the value of every label that the agent sets. It touches no other label."""
OVERALL = "StagegateReady"
"""The condition that is True when all refs that the agent keeps are ready."""
NAME_LENGTH = 63
"""Most characters of a label's name behind its prefix, and of its value."""
HEARTBEAT = timedelta(minutes=5)
"""Age after which a condition that did not change is written again, as the kubelet does."""
MAX_MESSAGE = 500
_HASH_DIGITS = 11


@dataclass(frozen=True, slots=True)
class NodeChanges:
    """What differs between a Node object and what is known of the node."""

    labels: dict[str, str | None]
    """None for a label that goes."""
    conditions: list[dict[str, str]]


def publish_node(
    workspace: Workspace, addresses: Iterable[Address], api: NodeApi, report: Callable[[str], None]
) -> None:
    """Bring the labels and conditions of this node's Node object up to date. What did not change is not written.

    Args:
        workspace: Cache and catalog.
        addresses: What the agent keeps on this node.
        api: The Node.
        report: Takes a line for each label that was set or removed.

    Raises:
        SourceError: Kubernetes' API refused, or did not answer.
        UsageError: There is no such Node.
        CatalogError: The catalog can't be read; the Node stays as it is.
    """
    states = [_state(workspace, address) for address in addresses]
    changes = node_changes(api.read(), states, now())
    if changes.labels:
        api.patch_labels(changes.labels)
        for key, value in changes.labels.items():
            report(f"Node {api.node}: label {key}={value}" if value else f"Node {api.node}: label {key} removed")
    if changes.conditions:
        api.patch_conditions(changes.conditions)


def label_key(dataset: str, ref: str) -> str:
    """The label, and the type of the condition, of a ref.

    A name of more than 63 characters is cut, and ends in two dashes and a part of its SHA-256. No name of a dataset or
    ref has two dashes in a row, so the cut name is no other ref's.

    >>> label_key("nycflights", "production")
    'stagegate.io/nycflights.production'
    """
    name = f"{dataset}.{ref}"
    if len(name) > NAME_LENGTH:
        digits = hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]
        name = f"{name[: NAME_LENGTH - _HASH_DIGITS - 2]}--{digits}"
    return PREFIX + name


def label_value(digest: str) -> str:
    """A digest as the value of a label: `sha256-` and its first 56 digits, which commands take for the version's name.

    >>> label_value("sha256:" + "0123456789abcdef" * 4)
    'sha256-0123456789abcdef0123456789abcdef0123456789abcdef01234567'
    """
    return f"{VALUE_PREFIX}{digest.removeprefix('sha256:')}"[:NAME_LENGTH]


def node_changes(node: Mapping[str, Any], states: Sequence[NodeReadiness], time: datetime) -> NodeChanges:
    """What must change on a Node object so that it tells the states. Pure.

    Args:
        node: The Node object.
        states: What the agent keeps.
        time: Now.

    Raises:
        SourceError: The object is not one of a Node.
    """
    refs = {label_key(state.dataset, state.ref): state for state in states if state.ref}
    wanted_labels = {key: label_value(state.digest) for key, state in refs.items() if state.is_ready}
    try:
        labels = {key: str(value) for key, value in (node["metadata"].get("labels") or {}).items()}
        conditions = {str(condition["type"]): condition for condition in node["status"].get("conditions") or ()}
    except (AttributeError, LookupError, TypeError) as error:
        raise SourceError("Kubernetes' API sent an object that is not one of a Node") from error
    patch: dict[str, str | None] = {
        key: None
        for key, value in labels.items()
        if key.startswith(PREFIX) and value.startswith(VALUE_PREFIX) and key not in wanted_labels
    }
    patch |= {key: value for key, value in wanted_labels.items() if labels.get(key) != value}

    wanted = {key: _condition(key, state) for key, state in refs.items()} | {OVERALL: _overall(states)}
    gone = [key for key in conditions if key.startswith(PREFIX) and key not in wanted]
    written = [
        _stamped(condition, conditions.get(key), time)
        for key, condition in wanted.items()
        if not _is_current(condition, conditions.get(key), time)
    ]
    return NodeChanges(patch, written + [{"type": key, "$patch": "delete"} for key in gone])


def _state(workspace: Workspace, address: Address) -> NodeReadiness:
    """As `node_readiness`; a dataset or ref that is unknown yet, a damaged record or an unproved entry: not ready."""
    try:
        return node_readiness(workspace, address)
    except (UnknownDataset, UnknownRef, CorruptRecord, UnprovedEntry) as error:
        return NodeReadiness(address.dataset, address.named_ref, "", "", error.message)


def _condition(key: str, state: NodeReadiness) -> dict[str, str]:
    """The condition of one ref, without its times."""
    if state.is_ready:
        message = f"{state.dataset}@{state.digest} is complete"
        return {"type": key, "status": "True", "reason": "VersionComplete", "message": message}
    return {"type": key, "status": "False", "reason": "VersionNotReady", "message": state.problem[:MAX_MESSAGE]}


def _overall(states: Sequence[NodeReadiness]) -> dict[str, str]:
    """The condition of all refs together, without its times. A node that keeps nothing is not ready for anything."""
    waiting = [f"{state.dataset}@{state.ref or state.digest}" for state in states if not state.is_ready]
    if not states:
        status, reason, message = "Unknown", "NothingKept", "The agent keeps no version on this node"
    elif waiting:
        names = ", ".join(waiting)
        status, reason, message = "False", "VersionsNotReady", f"Not ready: {names}"[:MAX_MESSAGE]
    else:
        status, reason, message = "True", "VersionsComplete", f"{count_text(len(states), 'version')} complete"
    return {"type": OVERALL, "status": status, "reason": reason, "message": message}


def _is_current(wanted: Mapping[str, str], condition: Mapping[str, Any] | None, time: datetime) -> bool:
    """Whether a condition of the Node says what is wanted, and was written lately."""
    if condition is None or any(condition.get(key) != value for key, value in wanted.items()):
        return False
    try:
        return abs(time - moment(str(condition.get("lastHeartbeatTime")))) < HEARTBEAT
    except ValueError:
        return False


def _stamped(wanted: dict[str, str], condition: Mapping[str, Any] | None, time: datetime) -> dict[str, str]:
    """The condition with its times. The time of its last transition stays while its status does."""
    at = f"{time:%Y-%m-%dT%H:%M:%SZ}"
    since = str(condition.get("lastTransitionTime") or at) if condition else at
    if condition is None or condition.get("status") != wanted["status"]:
        since = at
    return {**wanted, "lastHeartbeatTime": at, "lastTransitionTime": since}
