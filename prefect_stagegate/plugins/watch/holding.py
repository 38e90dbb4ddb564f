"""Targets that are held: no version is promoted to one until somebody who may waive at its gate releases it.

A hold needs nobody's proof. A release is proved when it is made, and again whenever it is read, by the policy in force.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from prefect_stagegate.clock import now, stamp
from prefect_stagegate.errors import GateFailed, UsageError
from prefect_stagegate.gate.authority import Authority, authority_of
from prefect_stagegate.gate.records.answers import PersonKey, signer_of
from prefect_stagegate.jobs.gating.policy import adopted_spec
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.watch.watch_records import HOLDS, Hold
from prefect_stagegate.show.legible import short_line, time_text
from prefect_stagegate.workspace import Workspace


def authority_at(workspace: Workspace, dataset: str, target: str) -> Authority:
    """Who may hold and release a target, by the policy in force."""
    return authority_of(adopted_spec(workspace, dataset), target, lambda: workspace.catalog.id)


def hold_of(workspace: Workspace, dataset: str, target: str) -> Hold | None:
    """The hold of a target, None when it is not held.

    The name is as it is proved, and the reason says why a release after it does not count.
    """
    records = workspace.catalog.all(HOLDS, dataset, target)
    if not records:
        return None
    authority, about = authority_at(workspace, dataset, target), _about(dataset, target)
    standing: list[tuple[Hold, str]] = []
    for record in records:
        if record.is_held:
            standing.append((record, ""))
            continue
        tried = [(hold, _why_standing(hold, record, authority, about)) for hold, _ in standing]
        ignored = f"; a release by {record.who.name} does not count: "
        standing = [(hold, short_line(ignored + why)) for hold, why in tried if why]
    if not standing:
        return None
    hold, ignored = standing[-1]
    return replace(hold, why=hold.why + ignored, who=authority.proved_name(hold, **about))


def _why_standing(hold: Hold, release: Hold, authority: Authority, about: dict[str, Any]) -> str:
    """Why a target is held in spite of a later release; empty where that ends the hold."""
    why = authority.why_ignored(release, **about, ends=hold.at)
    # The first signed releases named no hold. Somebody may have copied one behind a later hold.
    return authority.why_ignored(release, **about) if why and hold.at <= release.at else why


def _about(dataset: str, target: str) -> dict[str, Any]:
    """What is signed beside a record's fields. The first records were signed with an empty envelope."""
    return {"dataset": dataset, "target": target, "envelope": {}}


def holds_of(workspace: Workspace, dataset: str) -> dict[str, Hold]:
    """The holds of a dataset's targets, by target."""
    targets = workspace.catalog.folders(HOLDS, dataset)
    return {target: hold for target in targets if (hold := hold_of(workspace, dataset, target))}


def held_text(address: Address, hold: Hold) -> str:
    """Since when a target is held, by whom, and why."""
    return f"{address} is held since {time_text(hold.at)}, by {hold.who}: {hold.why}"


def release_command(address: Address) -> str:
    """The command that ends a hold."""
    return f"stagegate watch release {address} --reason TEXT"


def require_not_held(workspace: Workspace, dataset: str, _digest: str, target: str) -> None:
    """Refuse promotions to a target that is held.

    Raises:
        GateFailed: It is held.
    """
    if hold := hold_of(workspace, dataset, target):
        address = Address(dataset, target)
        hint = f"Once that is settled: `{release_command(address)}`."
        raise GateFailed(held_text(address, hold), hint=hint, dataset=dataset)


def why_held(workspace: Workspace, dataset: str) -> Callable[[str], str]:
    """Why a version may not be removed from the catalog: a target is held because of it; see `Plugin.keeps`."""
    holds = holds_of(workspace, dataset).items()
    return lambda digest: next((f"{target} is held: {hold.why}" for target, hold in holds if hold.digest == digest), "")


def hold_target(workspace: Workspace, address: Address, reason: str, key: PersonKey | None = None) -> Hold:
    """Let no promotion to a target through until somebody releases it, watched or not.

    Raises:
        UsageError: The address names no target, or one that is held already; there is no reason; or whoever does this
            may not overrule the target's gate.
        UnknownRef: The target names no version.
    """
    if not address.target:
        raise UsageError(f"{address} names no target", hint="Write DATASET@TARGET, as in `nycflights@production`.")
    digest = workspace.catalog.resolve(address)
    if hold := hold_of(workspace, address.dataset, address.target):
        raise UsageError(
            f"{address} is held already, by {hold.who}: {hold.why}", hint=f"`{release_command(address)}` ends that."
        )
    return _recorded(workspace, address, reason, key, digest)


def release_target(workspace: Workspace, address: Address, reason: str, key: PersonKey | None = None) -> Hold:
    """Let promotions to a target through again.

    Raises:
        UsageError: The address names no target, or one that is not held; there is no reason; or whoever does this may
            not overrule the target's gate.
    """
    hold = hold_of(workspace, address.dataset, address.target) if address.target else None
    if hold is None:
        raise UsageError(f"{address} is not held", hint="`stagegate status` says which targets are.")
    return _recorded(workspace, address, reason, key, ends=hold.at)


def _recorded(
    workspace: Workspace, address: Address, reason: str, key: PersonKey | None, digest: str = "", **about: str
) -> Hold:
    verb, done = ("hold", "held") if digest else ("release", "released")
    if not reason.strip():
        raise UsageError(f"A {verb} needs a reason", hint=f"`stagegate watch {verb} {address} --reason TEXT`")
    dataset, target = address.dataset, address.target
    hold = Hold(bool(digest), short_line(reason), digest, signer_of(workspace.identity, key), stamp(now()))
    authority = authority_at(workspace, dataset, target)
    hold = authority.sealed(hold, key, f"{address} was not {done}", **_about(dataset, target), **about)
    workspace.catalog.add(HOLDS, hold, dataset, target)
    return hold
