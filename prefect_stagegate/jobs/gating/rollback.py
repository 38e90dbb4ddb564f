"""Rolling back: move a target back to a version that it accepted before, and withdraw the one that it leaves."""

from __future__ import annotations

from collections.abc import Sequence

from prefect_stagegate.catalog import RefAction, RefEntry, moves, withdrawn
from prefect_stagegate.catalog.version_records import read_manifest
from prefect_stagegate.doors import require_allowed
from prefect_stagegate.errors import RefConflict, UnknownRef, UsageError
from prefect_stagegate.gate.authority import authority_of
from prefect_stagegate.gate.records.answers import PersonKey, signer_of
from prefect_stagegate.jobs.gating.policy import adopted_spec
from prefect_stagegate.jobs.gating.proofs import signing_key
from prefect_stagegate.jobs.runner import follow
from prefect_stagegate.model import Address, Promotion
from prefect_stagegate.workspace import Workspace


def rollback(
    workspace: Workspace,
    address: Address,
    *,
    to: str = "",
    leaving: str = "",
    reason: str,
    key: PersonKey | None = None,
) -> Promotion:
    """Move a target's ref back, and withdraw the version that it names. Readers that hold this version keep it.

    Args:
        workspace: Cache and catalog.
        address: The dataset and the target: `nycflights@production`.
        to: The version to return to, as it stands behind the `@` of an address: a digest, or `production~2`. By
            default the newest version that was accepted before and not withdrawn.
        leaving: The version that the target must still name; by default whichever it names.
        reason: Kept in the log. The withdrawn version isn't promoted again without `--reinstate`.
        key: Signs the rollback, where the gate wants that. Where only `policy.node_keys` does, the node's key signs it.

    Raises:
        UsageError: The address names no target, there is no reason, no version to return to, or the policy does not
            let this person roll back.
        RefConflict: Somebody else moved the ref meanwhile; nothing was changed.
    """
    if not address.target:
        raise UsageError(
            f"{address} names no target",
            hint=f"Name one, as in `stagegate rollback {address.dataset}@production --reason TEXT`.",
        )
    if not reason.strip():
        raise UsageError("A rollback needs a reason", hint=f"Run `stagegate rollback {address} --reason TEXT`.")
    dataset, ref = address.dataset, address.target
    workspace.catalog.resolve(address)  # its error lists the known refs when there is no such ref
    entries = workspace.catalog.history(dataset, ref)
    if leaving not in ("", entries[-1].digest):
        raise RefConflict(
            f"{address} names {entries[-1].digest} by now",
            hint=f"`stagegate history {address}` shows who moved it.",
            dataset=dataset,
        )
    leaving = entries[-1].digest
    digest = workspace.catalog.resolve(Address.parse(f"{dataset}@{to}")) if to else ""
    chosen = _choose(entries, leaving, digest, address)
    read_manifest(workspace.catalog, dataset, chosen.digest)  # raises when the version was removed meanwhile
    require_allowed("roll_back", workspace, dataset, chosen.digest, ref)
    authority = authority_of(adopted_spec(workspace, dataset), ref, lambda: workspace.catalog.id)
    who = signer_of(workspace.identity, key)
    if authority.nodes:
        key, who = signing_key(workspace), workspace.identity
    # The new entry carries the attestation by which the target accepted the version that it returns to.
    workspace.catalog.move_ref(
        dataset,
        ref,
        chosen.digest,
        head=entries[-1],
        action=RefAction.ROLLBACK,
        who=who,
        reason=reason,
        withdrawn=leaving,
        attestation=chosen.attestation,
        sign=lambda entry: authority.sealed(entry, key, f"{address} was not rolled back").envelope,
    )
    moved = Promotion(dataset, ref, chosen.digest, leaving)
    # Last, since the catalog's move stands even when this node's copy can't be written.
    follow(workspace, moved)
    return moved


def earlier_versions(entries: Sequence[RefEntry], leaving: str) -> list[RefEntry]:
    """The moves of a target to versions to which it can return when it leaves one, the newest first."""
    withdrawals = withdrawn(entries)
    # A withdrawn version is no place to return to: it failed, or somebody rolled back from it.
    return [move for move in reversed(moves(entries)) if move.digest != leaving and move.digest not in withdrawals]


def _choose(entries: list[RefEntry], leaving: str, to: str, address: Address) -> RefEntry:
    """The newest move to `to`, or to any accepted version when `to` is empty."""
    chosen = next((entry for entry in earlier_versions(entries, leaving) if to in ("", entry.digest)), None)
    if chosen is None:
        raise UnknownRef(
            f"{address} can't return to {to}: it never named that version, or withdrew it"
            if to
            else f"{address} has no earlier version to return to",
            hint=f"`stagegate history {address}` shows what it named.",
            dataset=address.dataset,
        )
    return chosen
