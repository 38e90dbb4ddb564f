"""What counts only with signatures: entries of a target's log, and the evidence of nodes.

Two places ask for them: STAGEGATE_VERIFICATION_KEYS, which nobody who writes to the catalog can change, and the adopted
policy, by `node_keys` and signed approvals. Where neither asks, nothing is verified, and nothing for it is loaded.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from prefect_stagegate.catalog import Catalog, PolicyEntry, RefAction, RefEntry, adopted_as, moves
from prefect_stagegate.catalog.environments import shortened
from prefect_stagegate.catalog.gate_records import put_evidence, read_evidence
from prefect_stagegate.catalog.records import encode
from prefect_stagegate.catalog.refs import DecisionSummary, read_summary, why_unproved
from prefect_stagegate.errors import CatalogError, CorruptRecord, StagegateError, UsageError
from prefect_stagegate.model import Evidence
from prefect_stagegate.model.canonical import canonical

if TYPE_CHECKING:
    from prefect_stagegate.gate.records.signing import SigningKey
    from prefect_stagegate.model.settings import Settings
    from prefect_stagegate.workspace import ResolvedVersion, Workspace

EVIDENCE_PAYLOAD = "application/vnd.prefect-stagegate.evidence+json"
"""The payload type of signed evidence in DSSE envelopes."""


@dataclass(frozen=True, slots=True)
class SignatureProof:
    """Verifies entries of targets' logs by public keys (`ed25519:…`), and by the policy of their decisions."""

    keys: tuple[str, ...]

    @classmethod
    def by(cls, settings: Settings) -> SignatureProof:
        """Verifies by the keys of the settings."""
        if not settings.verification_keys:
            return cls(())
        from prefect_stagegate.gate.records.signing import read_public_key  # late: it loads all checks

        return cls(tuple(map(read_public_key, settings.verification_keys)))

    def __call__(self, catalog: Catalog, entry: RefEntry) -> str:
        """Why an entry is not proved; empty when it is, or when nothing asks for a proof."""
        try:
            return next(self._problems(catalog, entry), "")
        except StagegateError as error:  # it is damaged, or this node lacks what verifies signatures
            if isinstance(error, CatalogError) and not isinstance(error, CorruptRecord):
                raise  # the store fails, which says nothing about the entry
            return str(error).rstrip(".")

    def _problems(self, catalog: Catalog, entry: RefEntry) -> Iterator[str]:
        decision = read_summary(entry.attestation)
        policies = catalog.policies(entry.dataset)
        # The decision's own, and the one in force where that is known: adopting another one ends no entry of before.
        own = adopted_as(policies, decision.adopted)
        known = [policy for policy in policies if policy.is_before(entry.ref, entry.seq)][-1:]
        if own is None:
            yield "its decision was made under a policy that was never adopted"
            return
        asked = [policy.policy for policy in (own, *known)]
        node_keys = [policy.get("policy", {}).get("node_keys", ()) for policy in asked]
        # `signed` as somebody wrote it: `true`, `yes` or `1`; `proof` is left out where none is asked. A column may
        # have these names, too.
        rules = [canonical([policy.get("gates"), policy.get("policy", {}).get("overrides")]) for policy in asked]
        rules = [rule.replace(b'"signed":false', b"") for rule in rules]
        wants_answers = any(key in rule for rule in rules for key in (b'"signed":', b'"proof":'))
        if not (self.keys or wants_answers or any(node_keys)):
            return
        from prefect_stagegate.jobs.gating.attested_answers import signed_by, why_unsigned  # late, as above

        about = entry.withdrawn if entry.action is RefAction.WITHDRAW else entry.digest
        if (decision.dataset, decision.target, decision.digest) != (entry.dataset, entry.ref, about):
            yield "its decision is about something else"
        for keys, name in ((self.keys, "verification keys"), (node_keys[0], "policy's keys of nodes")):
            if keys and not signed_by(catalog, entry, keys):
                yield f"none of the {name} signed its decision"
        if (wants_answers or any(node_keys)) and (why := why_unsigned(catalog, entry, known or policies[-1:])):
            yield why
        yield from _order_problems(catalog, entry, decision, known)


def _order_problems(
    catalog: Catalog, entry: RefEntry, decision: DecisionSummary, known: Sequence[PolicyEntry]
) -> Iterator[str]:
    """What is wrong with a decision at this place of the log: an old one, signed as it is, would move the target."""
    is_rollback = entry.action is RefAction.ROLLBACK
    if entry.action is RefAction.WITHDRAW and decision.accepted:
        yield "its decision accepts the version that it withdraws"
    if not is_rollback and known and known[0].digest != decision.adopted:
        yield "its decision was made under a policy that was replaced before"
    if entry.seq == decision.after + 1:
        return  # the log need not be read
    between = catalog.ref_log(entry.dataset, entry.ref).entries()[decision.after : entry.seq - 1]
    if not is_rollback and moves(between):
        yield "the target moved after its decision"
    # Earlier releases stored it whole.
    decided = shortened(entry.attestation)
    if is_rollback and all(why_unproved(catalog, each) for each in between if shortened(each.attestation) == decided):
        yield "no proved entry before it accepted its version"


def signing_key(workspace: Workspace) -> SigningKey | None:
    """Read the key that the settings name. Callers read it first, so that a wrong key leaves nothing half done."""
    from prefect_stagegate.gate.records.signing import read_signing_key

    path = workspace.settings.signing_key
    return read_signing_key(path, workspace.ask_passphrase) if path else None


def key_of_node(workspace: Workspace, version: ResolvedVersion) -> SigningKey | None:
    """The key that signs what this node finds out about a version.

    Raises:
        UsageError: The key can't be read, or the adopted policy has keys of nodes, and this is none of them.
    """
    key, keys = signing_key(workspace), version.spec.policy.node_keys
    if keys and not version.is_trial and (key is None or key.public not in keys):
        raise UsageError(
            f"Only nodes with a key in the policy of {version.dataset} decide, and this node has none of them",
            hint="STAGEGATE_SIGNING_KEY names the node's key, and `policy.node_keys` of the spec has its public half.",
            dataset=version.dataset,
        )
    return key


def put_signed(
    catalog: Catalog, version: ResolvedVersion, evidence: Iterable[Evidence], key: SigningKey | None
) -> None:
    """Record evidence about a version, signed where there is a key."""
    if key:
        envelopes = ((item, key.sign(_statement(version, item), EVIDENCE_PAYLOAD)) for item in evidence)
        evidence = [replace(item, signatures=tuple(envelope["signatures"])) for item, envelope in envelopes]
    put_evidence(catalog, version.dataset, version.digest, evidence)


def counted_evidence(catalog: Catalog, version: ResolvedVersion) -> list[Evidence]:
    """The evidence about a version that counts under its policy, the oldest first."""
    keys, evidence = version.spec.policy.node_keys, read_evidence(catalog, version.dataset, version.digest)
    return [item for item in evidence if not keys or _is_signed(version, item, keys)]


def _is_signed(version: ResolvedVersion, item: Evidence, keys: tuple[str, ...]) -> bool:
    from prefect_stagegate.gate.records.signing import signers

    statement = _statement(version, item)
    envelope = {"payload": base64.b64encode(canonical(statement)).decode(), "payloadType": EVIDENCE_PAYLOAD}
    return bool(signers({**envelope, "signatures": item.signatures}, statement, EVIDENCE_PAYLOAD, keys))


def _statement(version: ResolvedVersion, item: Evidence) -> dict[str, Any]:
    """What a node signs: all of its evidence with the version, so that it fits no other."""
    # As it is read back, and without defaults, so that a field of a later release ends no signature.
    read = TypeAdapter(Evidence).validate_json(encode(replace(item, signatures=())))
    written = TypeAdapter(Evidence).dump_python(read, mode="json", exclude_defaults=True)
    return {"dataset": version.dataset, "digest": version.digest, "evidence": written}
