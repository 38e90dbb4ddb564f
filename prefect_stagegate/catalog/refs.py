"""The log of a ref: each entry moves it, or withdraws a version, and holds the attestation that allowed it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any

from prefect_stagegate.catalog.log import State
from prefect_stagegate.catalog.records import encode
from prefect_stagegate.doors import Record
from prefect_stagegate.errors import CorruptRecord, UnprovedEntry
from prefect_stagegate.model import LATEST, Identity
from prefect_stagegate.model.canonical import sha256_of
from prefect_stagegate.unreadable import UnreadableRecords, skipping

if TYPE_CHECKING:
    from prefect_stagegate.catalog.catalog import Catalog

LONG_LOG = 20
"""Entries of `latest` from which each ref is listed by itself: that costs more requests, and fewer keys."""


class RefAction(StrEnum):
    """Why a ref was moved."""

    STAGE = "stage"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    WITHDRAW = "withdraw"
    """The ref stays: a version that it names, or named, is withdrawn."""


@dataclass(frozen=True, slots=True)
class RefEntry:
    """One move of a ref."""

    seq: int
    """The entry's number, from 1, without gaps."""
    dataset: str
    ref: str
    digest: str
    """The version that the ref names from here on."""
    action: RefAction
    who: Identity
    at: str
    reason: str = ""
    withdrawn: str = ""
    """A version that this entry withdraws: no schedule promotes it again."""
    attestation: Mapping[str, Any] = field(default_factory=dict)
    """The in-toto Statement that allowed the move, or that withdrew the version; empty for `latest`. It may have its
    environment by its digest: `whole_statement` gives the Statement that was signed."""
    before: str = ""
    """`sha256:<hex>` of the entry before as stored; empty for the first."""
    envelope: Mapping[str, Any] = field(default_factory=dict)
    """The signature of whoever rolled back, as in `Approval`; empty when it isn't signed."""


@dataclass(frozen=True, slots=True)
class RefHead:
    """What a ref names now."""

    entry: RefEntry
    """The newest entry of its log."""
    move: RefEntry
    """The newest entry that moved it: the same one, unless that withdrew a version."""
    withdrawals: Mapping[str, int]
    """The withdrawn versions, each with the number of the entry that withdrew it."""


REFS = Record("stagegate.refs", RefEntry)


def ref_heads(catalog: Catalog, dataset: str, unreadable: UnreadableRecords | None = None) -> dict[str, RefHead]:
    """What each ref of a dataset names now, sorted by name. For listings: see `Log.newest`.

    `unreadable` collects the refs that can't be read, which are left out; with None, the first of them raises.
    """
    listed: dict[str, list[str] | None]
    if catalog.ref_log(dataset, LATEST).checked > LONG_LOG:
        listed = dict.fromkeys(catalog.folders(REFS, dataset))
    else:  # one listing for all refs
        groups = groupby(catalog.names(REFS, dataset), lambda name: name.split("/")[0])
        listed = {ref: [REFS.path(dataset, *name.split("/")) for name in names] for ref, names in groups}
    heads: dict[str, RefHead] = {}
    for name, keys_of_ref in listed.items():
        log = catalog.ref_log(dataset, name)
        with skipping(unreadable, dataset):
            entry, state = log.newest(keys_of_ref)
            if entry is not None:
                if why := why_unproved(catalog, entry):
                    raise unproved(entry, why, catalog.ref(dataset, name))
                entries = chain([entry], log.before(entry))
                move = next(each for each in entries if each.action is not RefAction.WITHDRAW)
                heads[name] = RefHead(entry, move, state.get("withdrawn", {}))
    return heads


EntryProof = Callable[[Any, RefEntry], str]
"""Given the catalog, says why an entry of a target's log is not proved by signatures; empty when it is, or when nothing
asks for a proof. Its `repr` names the keys: with others, entries are proved anew."""


def why_unproved(catalog: Catalog, entry: RefEntry) -> str:
    """Why an entry of a ref's log is not proved; empty when it is. The node remembers what was proved."""
    proof, memory = catalog.proof, catalog.memory
    if proof is None or entry.ref == LATEST:
        return ""
    # By the keys and the whole entry, which has the hash of the one before.
    note = f"proved {sha256_of(repr(proof).encode() + encode(entry))}"
    if memory and memory.noted(note):
        return ""
    why = proof(catalog, entry)
    # It repeats what the entry before made the ref name.
    if not why and entry.action is RefAction.WITHDRAW and entry.before:
        why = why_unproved(catalog, next(catalog.ref_log(entry.dataset, entry.ref).before(entry)))
    if memory and not why:
        memory.note(note, "yes")
    return why


def unproved(entry: RefEntry, why: str, last: RefEntry | None) -> UnprovedEntry:
    """The error for an entry that is not proved; `last` is the last one that is."""
    name, to, version = f"{entry.dataset}@{entry.ref}", entry.ref, f"{entry.dataset}@{entry.digest}"
    stays = f"{name} stays at {last.digest} (entry {last.seq}). " if last else ""
    return UnprovedEntry(
        f"Entry {entry.seq} of {name}, by {entry.who} at {entry.at}, can't be proved: {why}",
        hint=f"{stays}If its version is meant, set STAGEGATE_SIGNING_KEY and run "
        f"`stagegate check {version} --gate {to}`, then `stagegate promote {version} --to {to}`.",
        dataset=entry.dataset,
    )


def withdrawn(entries: Sequence[RefEntry]) -> dict[str, RefEntry]:
    """The versions that were withdrawn and not accepted again, each with the entry that withdrew it."""
    withdrawals: dict[str, RefEntry] = {}
    for entry in entries:
        if entry.action is not RefAction.WITHDRAW:
            # A later promotion or rollback to a withdrawn version ends its withdrawal.
            withdrawals.pop(entry.digest, None)
        if entry.withdrawn:
            withdrawals[entry.withdrawn] = entry
    return withdrawals


def withdrawal_of(catalog: Catalog, dataset: str, ref: str, digest: str) -> RefEntry | None:
    """The entry that withdrew a version from a target; None for one that may be used, and for refs of no target."""
    return None if ref in ("", LATEST) else withdrawn(catalog.history(dataset, ref)).get(digest)


def moves(entries: Sequence[RefEntry]) -> list[RefEntry]:
    """The entries that moved the ref."""
    return [entry for entry in entries if entry.action is not RefAction.WITHDRAW]


def prove_move(dataset: str, ref: str, policies: Callable[[], Sequence[str]], entry: RefEntry, state: State) -> State:
    """Check that an entry of a ref's log was allowed after the entries before it.

    The state holds the ref's version, all versions that it named, the withdrawn versions, each with the number of the
    entry that withdrew it, and the number of the newest policy under which the ref was moved.
    """
    if (entry.dataset, entry.ref) != (dataset, ref):
        raise CorruptRecord(f"it belongs to {entry.dataset}@{entry.ref}")
    if (ref == LATEST) != (entry.action is RefAction.STAGE):
        raise CorruptRecord(f"the action {entry.action} can't move {ref}")
    # Staging moves it without a gate, so there is no attestation to check.
    if ref == LATEST:
        return {}
    withdrawals: dict[str, int] = dict(state.get("withdrawn", {}))
    past_digests: list[str] = state.get("named", [])
    adopted: int = state.get("policy", 0)
    if entry.action is RefAction.WITHDRAW:
        if entry.digest != state.get("digest"):
            raise CorruptRecord("it withdraws a version and moves the ref to another one")
    else:
        if entry.action is RefAction.ROLLBACK and entry.digest not in past_digests:
            raise CorruptRecord("it is a rollback to a version that the ref never named")
        # The highest so far, so that a rollback to an old policy does not let later promotions use that policy again.
        adopted = max(adopted, _require_accepted(entry, policies(), adopted, withdrawals.get(entry.digest, 0)))
        # The check above made sure that its gate accepted it again after the withdrawal.
        withdrawals.pop(entry.digest, None)
    if entry.withdrawn:
        withdrawals[entry.withdrawn] = entry.seq
    past_digests = past_digests if entry.digest in past_digests else [*past_digests, entry.digest]
    return {"digest": entry.digest, "named": past_digests, "policy": adopted, "withdrawn": withdrawals}


def _require_accepted(entry: RefEntry, policies: Sequence[str], adopted: int, withdrawn: int) -> int:
    """Raise unless the target's gate accepted exactly this version, under a policy that was adopted then.

    Args:
        entry: A promotion or a rollback.
        policies: The digests of the adopted policies, the oldest first.
        adopted: The number of the newest policy under which the ref was moved so far.
        withdrawn: The number of the entry that withdrew the version; 0 when none did.

    Returns:
        The number of the policy, counted from 1.
    """
    attested = read_summary(entry.attestation)
    about = (attested.dataset, attested.target, attested.digest)
    if about != (entry.dataset, entry.ref, entry.digest):
        raise CorruptRecord(f"its attestation is about {about[0]}@{about[2]} for {about[1]}, not about {entry.digest}")
    if not attested.accepted:
        raise CorruptRecord(f"its attestation does not accept {entry.digest}")
    if attested.after < withdrawn:
        raise CorruptRecord(f"{entry.digest} was withdrawn, and its gate has not accepted it since")
    # A rollback may name a version that was accepted under an earlier policy; a promotion may not.
    earliest = 1 if entry.action is RefAction.ROLLBACK else max(adopted, 1)
    numbers = [number for number, digest in enumerate(policies, start=1) if digest == attested.adopted]
    number = next((number for number in numbers if number >= earliest), 0)
    if not number:
        raise CorruptRecord(
            f"its decision was made under the policy {attested.adopted[:19]}…, which was not adopted then"
        )
    return number


@dataclass(frozen=True, slots=True)
class DecisionSummary:
    """The fields of a decision that decide whether a ref may name its version. `gate.records.attest` reads all."""

    dataset: str
    digest: str
    target: str
    accepted: bool
    adopted: str
    """`sha256:<hex>` of the dataset's policy under which the decision was made."""
    after: int
    """The number of the target's last move at the time of the decision; 0 before the first."""


def read_summary(statement: Mapping[str, Any]) -> DecisionSummary:
    """Read these fields from an in-toto Statement.

    Raises:
        CorruptRecord: A field is missing, or the Statement's subject or result contradicts the decision in it.
    """
    try:
        # Exactly one: with several, two readers could take different ones for the version that is meant.
        (subject,) = statement["subject"]
        predicate = statement["predicate"]
        decision = predicate["stagegate"]["decision"]
        attested = DecisionSummary(
            dataset=str(decision["dataset"]),
            digest=str(decision["digest"]),
            target=str(decision["target"]),
            accepted=decision["outcome"] == "accepted",
            adopted=str(decision["adopted"]),
            after=int(decision["after"]),
        )
        shown = (subject["name"], "sha256:" + subject["digest"]["sha256"], predicate["result"] in ("PASSED", "WARNED"))
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptRecord("it holds no attestation of a gate's decision") from error
    if shown != (attested.dataset, attested.digest, attested.accepted):
        raise CorruptRecord("its attestation contradicts itself")
    return attested
