"""Verifying one attestation: what holds, what doesn't, and what can't be told. Changes nothing."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from prefect_stagegate.canonical import canonical
from prefect_stagegate.catalog import RefEntry, adopted_as
from prefect_stagegate.errors import CorruptRecord, StagegateError, UsageError
from prefect_stagegate.model import Address, check_name
from prefect_stagegate.operations.gating.audit import contradictions, public_keys, self_made
from prefect_stagegate.operations.gating.policy import spec_under
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.readiness.records.attest import AttestedDecision, read_statement, statement_digest
from prefect_stagegate.readiness.records.signing import STATEMENT_PAYLOAD, signers
from prefect_stagegate.units import digest_text

LARGEST = 64 << 20
"""Bytes of the largest file that is read."""


class Verdict(StrEnum):
    """What became of one part of the verification."""

    HOLDS = "holds"
    FAILS = "fails"
    UNKNOWN = "unknown"
    """It can't be told, with what was given."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the verification."""

    what: str
    verdict: Verdict
    why: str


@dataclass(frozen=True, slots=True)
class Presented:
    """An attestation as somebody presents it."""

    statement: Mapping[str, Any]
    envelopes: tuple[Mapping[str, Any], ...] = ()
    """DSSE envelopes that came with it."""


def verify_attestation(
    workspace: Workspace, what: str | Path, *, gate: str = "", keys: Sequence[str] = ()
) -> list[Part]:
    """Verify the attestation that let a version in at a target, or one in a file.

    Args:
        workspace: The catalog that it is compared with.
        what: `nycflights@production`, a version with `gate`, or a file: a Statement or a DSSE envelope around one.
        gate: The target, for a version that is named by its digest or another ref: its newest decision is meant.
        keys: Public keys (`ed25519:…` or PEM files) beside those of the settings.

    Raises:
        UsageError: There is no such attestation, or the file holds none.
    """
    if gate:
        check_name("target", gate)
    public = public_keys(workspace, keys)
    shown = _from_file(Path(what)) if _is_file(what) else _from_catalog(workspace, Address.parse(str(what)), gate)
    try:
        attested = read_statement(shown.statement)
    except CorruptRecord as error:
        return [Part("contents", Verdict.FAILS, error.message)]
    return list(_parts(workspace, shown, attested, public))


def _is_file(what: str | Path) -> bool:
    return isinstance(what, Path) or what.endswith(".json") or Path(what).is_file()


def _from_file(path: Path) -> Presented:
    try:
        if path.stat().st_size > LARGEST:
            raise UsageError(f"{path} is larger than any attestation")
        read = json.loads(path.read_bytes())
        if isinstance(read, dict) and "payload" in read:
            return Presented(json.loads(base64.b64decode(read["payload"], validate=True)), (read,))
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, TypeError, binascii.Error) as error:
        raise UsageError(f"{path} holds no attestation: {error}") from error
    if not isinstance(read, dict):
        raise UsageError(f"{path} holds no attestation", hint="It is a Statement in JSON, or a DSSE envelope with one.")
    return Presented(read.get("attestation", read))  # also an entry of a ref's log


def _from_catalog(workspace: Workspace, address: Address, gate: str) -> Presented:
    if gate:
        digest = workspace.catalog.resolve(address)
        statement: Mapping[str, Any] | None = workspace.catalog.attestation(address.dataset, digest, gate)
        name = f"{address.dataset}@{digest}"
    elif address.target:
        workspace.catalog.resolve(address)
        statement, name = workspace.catalog.history(address.dataset, address.ref)[-1].attestation, str(address)
    else:
        raise UsageError(
            f"{address} names no target", hint=f"Name one, as in {address.dataset}@production, or give --gate."
        )
    if not statement:
        raise UsageError(f"No gate {gate or address.ref} decided about {name}", dataset=address.dataset)
    return Presented(statement, tuple(workspace.catalog.signatures(address.dataset, statement_digest(statement))))


def _parts(workspace: Workspace, shown: Presented, attested: AttestedDecision, keys: Sequence[str]) -> Iterator[Part]:
    decision = attested.decision
    yield Part("contents", Verdict.HOLDS, f"{decision.outcome}, decided {decision.at} by {attested.verifier['name']}")
    yield _subject(workspace, attested)
    yield _policy(workspace, attested)
    yield _log(workspace, shown, attested)
    broken = "; ".join(self_made(attested))
    people = f"{decision.requester} asked; nobody agreed to or waived what they asked for themselves"
    yield Part("people", Verdict.FAILS if broken else Verdict.HOLDS, broken or people)
    yield _signature(shown, keys)


def _subject(workspace: Workspace, attested: AttestedDecision) -> Part:
    """Whether the rows that the catalog has of the version hash to the digest that was judged."""
    decision = attested.decision
    try:
        files = sum(1 for _ in workspace.catalog.manifest(decision.dataset, decision.digest).entries())
    except UsageError as error:
        return Part("subject", Verdict.UNKNOWN, error.message)
    except StagegateError as error:
        return Part("subject", Verdict.FAILS, error.message)
    return Part("subject", Verdict.HOLDS, f"the manifest's rows ({files}) hash to {decision.digest}")


def _policy(workspace: Workspace, attested: AttestedDecision) -> Part:
    """Whether the policy that the version was judged by was adopted, and gives the gate that decided."""
    decision = attested.decision
    try:
        policies = workspace.catalog.policies(decision.dataset)
    except StagegateError as error:
        return Part("policy", Verdict.FAILS, error.message)
    adopted = adopted_as(policies, decision.adopted)
    if adopted is None:
        return Part("policy", Verdict.FAILS, f"{decision.dataset} never adopted the policy {decision.adopted}")
    try:
        gate = spec_under(adopted.policy, decision.dataset).gate(decision.target)
    except (CorruptRecord, UsageError) as error:  # of a release that knew other checks
        return Part("policy", Verdict.UNKNOWN, error.message)
    if gate.policy != decision.policy:
        return Part(
            "policy", Verdict.UNKNOWN, f"this release reads policy {adopted.seq} otherwise than the one that decided"
        )
    age = "the adopted policy" if adopted.seq == len(policies) else "a policy that was changed since"
    return Part("policy", Verdict.HOLDS, f"{digest_text(adopted.digest)}, number {adopted.seq}, is {age}")


def _log(workspace: Workspace, shown: Presented, attested: AttestedDecision) -> Part:
    """Whether the ref's log, whose chain must hold, has exactly this attestation."""
    decision = attested.decision
    try:
        entries, head = workspace.catalog.chain(decision.dataset, decision.target)
        decided = workspace.catalog.attestations(decision.dataset, decision.digest, decision.target)
    except StagegateError as error:
        return Part("log", Verdict.FAILS, error.message)
    if decision.dataset not in workspace.catalog.datasets():
        return Part("log", Verdict.UNKNOWN, f"the catalog {workspace.catalog.url} has no dataset {decision.dataset}")
    digest = statement_digest(shown.statement)
    found: list[RefEntry] = [e for e in entries if e.attestation and statement_digest(e.attestation) == digest]
    if found:
        if wrong := "; ".join(problem for entry in found for problem in contradictions(attested, entry)):
            return Part("log", Verdict.FAILS, wrong)
        numbers = ", ".join(str(entry.seq) for entry in found)
        why = f"entry {numbers} of {len(entries)} in an unbroken chain, whose last is {digest_text(head)}"
        return Part("log", Verdict.HOLDS, why)
    if any(statement_digest(one) == digest for one in decided):
        return Part("log", Verdict.HOLDS, f"recorded, and nothing was moved to {decision.target} by it")
    return Part("log", Verdict.FAILS, f"the catalog has no such decision of {decision.target}: it was changed")


def _signature(shown: Presented, keys: Sequence[str]) -> Part:
    if not shown.envelopes:
        why = "it is not signed"
        return Part("signature", Verdict.FAILS if keys else Verdict.UNKNOWN, why)
    if not keys:
        return Part("signature", Verdict.UNKNOWN, "it is signed, and no key was given to prove it with --key")
    proved = sorted({key for one in shown.envelopes for key in signers(one, shown.statement, STATEMENT_PAYLOAD, keys)})
    if proved:
        return Part("signature", Verdict.HOLDS, f"by {', '.join(proved)}")
    return Part("signature", Verdict.FAILS, "none of the keys signed exactly this")


def envelope_of(workspace: Workspace, address: Address, gate: str = "") -> bytes:
    """An attestation as others read it: the DSSE envelope when it is signed, else the Statement; JSON.

    Raises:
        UsageError: There is no such attestation.
    """
    shown = _from_catalog(workspace, address, gate)
    return canonical(shown.envelopes[0] if shown.envelopes else shown.statement)
