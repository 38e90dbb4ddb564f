"""The versions that gates accepted before the one that is judged, by the logs of their refs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from prefect_stagegate.catalog import Catalog, RefAction, RefEntry, moves, withdrawn
from prefect_stagegate.catalog.environments import whole_statement
from prefect_stagegate.environment import Environment
from prefect_stagegate.gate.check_context import CheckContext, Fact
from prefect_stagegate.gate.records.attest import decision_of, read_statement
from prefect_stagegate.model import Decision


@dataclass(frozen=True, slots=True)
class Accepted:
    """A version that a gate accepted, so that its target's ref moved to it."""

    target: str
    digest: str
    at: str
    """When the ref was moved to it."""
    decision: Decision | None = None
    """The decision that the ref's log holds for it."""
    environment: Callable[[], Environment] | None = None
    """Reads the environment of the decision from the catalog, or raises `CorruptRecord`; None without a decision."""
    until: str = ""
    """When the ref moved on; empty while it still names the version."""


@Fact
def ref_log(context: CheckContext) -> Sequence[RefEntry]:
    """The log of the target's ref; empty where nobody asks for a promotion."""
    return context.workspace.catalog.history(context.dataset, context.target) if context.target else ()


@Fact
def accepted_below(context: CheckContext) -> Accepted | None:
    """This version, if the gate below accepted it and did not withdraw it, else what that gate's ref names.

    None when this gate extends none, or the gate below accepted no version. The ref may have moved on while this
    version waited for an approval. That withdraws nothing.
    """
    if not context.gate.extends:
        return None
    entries = context.workspace.catalog.history(context.dataset, context.gate.extends)
    accepted, withdrawals = moves(entries), withdrawn(entries)
    to_version = [entry for entry in accepted if entry.digest == context.digest]
    if to_version and context.digest not in withdrawals:
        later = [entry for entry in accepted if entry.seq > to_version[-1].seq]
        return replace(_accepted(context, to_version[-1]), until=later[0].at if later else "")
    return _accepted(context, accepted[-1]) if accepted and accepted[-1].digest not in withdrawals else None


@Fact
def last_accepted(context: CheckContext) -> Accepted | None:
    """The version that a rollback would return to: the newest other than this one that the target still accepts."""
    return _last_accepted(context, ref_log(context))


@Fact
def reference(context: CheckContext, ref: str = "") -> Accepted | None:
    """The version to compare this one with: what the target, or another `ref`, named before it accepted this one.

    Where the target never accepted this version, or withdrew it, that is what the target names now. A later move, or a
    rollback to this version, does not change the reference, so the evidence that it was accepted with stays current.
    """
    entries = context.workspace.catalog.history(context.dataset, ref) if ref else ref_log(context)
    digest = context.digest
    promotions = [entry.seq for entry in entries if entry.digest == digest and entry.action is RefAction.PROMOTE]
    end = promotions[-1] if promotions and digest not in withdrawn(entries) else None
    return _last_accepted(context, [entry for entry in entries if end is None or entry.seq < end])


def _last_accepted(context: CheckContext, log: Sequence[RefEntry]) -> Accepted | None:
    """The newest version other than this one that a target accepted and did not withdraw."""
    withdrawals = withdrawn(log)
    others = [entry for entry in moves(log) if entry.digest != context.digest and entry.digest not in withdrawals]
    return _accepted(context, others[-1]) if others else None


def _accepted(context: CheckContext, entry: RefEntry) -> Accepted:
    if not entry.attestation:
        return Accepted(entry.ref, entry.digest, entry.at)
    environment = cache(lambda: environment_of(context.workspace.catalog, entry))
    return Accepted(entry.ref, entry.digest, entry.at, decision_of(entry.attestation), environment)


def environment_of(catalog: Catalog, entry: RefEntry) -> Environment:
    """The environment that an entry's decision was made in.

    Raises:
        CorruptRecord: Its record is gone or damaged, or is that of another decision.
    """
    return read_statement(whole_statement(catalog, entry.attestation)).environment
