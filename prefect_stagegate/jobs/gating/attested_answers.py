"""What an attestation proves: who signed it, and the answers that it counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect_stagegate.catalog import Catalog, PolicyEntry, RefAction, RefEntry
from prefect_stagegate.catalog.environments import whole_statement
from prefect_stagegate.catalog.gate_records import SIGNATURES
from prefect_stagegate.catalog.policies import adopted_policy
from prefect_stagegate.catalog.refs import why_unproved
from prefect_stagegate.errors import UsageError
from prefect_stagegate.gate.approval_counting import AnswerTally, count_answers
from prefect_stagegate.gate.approval_parameters import APPROVAL, approval_asked_by
from prefect_stagegate.gate.authority import authority_of
from prefect_stagegate.gate.records.answers import SSHSIG, answer_act, signed_moment
from prefect_stagegate.gate.records.attest import STATEMENT_TYPE, AttestedDecision, read_statement, statement_digest
from prefect_stagegate.gate.records.signing import STATEMENT_PAYLOAD, signers
from prefect_stagegate.gate.records.ssh_signatures import verification_line
from prefect_stagegate.jobs.gating.approve import why_dated_back
from prefect_stagegate.jobs.gating.policy import spec_under
from prefect_stagegate.model import ApprovalRequest, Decision, Outcome, Severity
from prefect_stagegate.model.canonical import canonical
from prefect_stagegate.spec import Gate
from prefect_stagegate.workspace import Workspace

SCRIPT = """\
#!/bin/sh
# Verifies each answer with OpenSSH's ssh-keygen, 8.9 or later.
set -e
cd "$(dirname "$0")"
"""


def count_attested_answers(catalog: Catalog, attested: AttestedDecision) -> AnswerTally | None:
    """Count the answers to a decision's request again, under the policy that it was made by.

    Gives None when the decision rests on no approval.

    Raises:
        UsageError: The dataset never adopted this policy.
        CorruptRecord: This release can't read the policy.
        MissingExtra: What verifies the signatures is not installed.
    """
    decision, request = attested.decision, attested.request
    if not any(result.check == APPROVAL and result.outcome is Outcome.PASS for result in decision.checks):
        return None
    # Answers to another request say nothing about this decision.
    is_ours = request and request.is_of(catalog.id) and _is_about(request, decision)
    if request and (not is_ours or why_dated_back(catalog, request)):
        request = None
    owners = adopted_policy(catalog, decision.dataset, decision.adopted).get("owners", {})
    return count_answers(request, attested.approvals, approval_asked_by(gate_of(catalog, decision)), owners)


def why_unsigned(catalog: Catalog, entry: RefEntry, in_force: Sequence[PolicyEntry]) -> str:
    """Why an entry of a target's log lacks the answers, or the rollback, that its gate wants signed; empty when not.

    A rollback needs the signature that a policy `in_force` wants, or for earlier releases that of its decision.
    """
    attested = read_statement(whole_statement(catalog, entry.attestation))
    request, gate = attested.request, gate_of(catalog, attested.decision)
    is_asked = any(item.check == APPROVAL and item.severity is Severity.BLOCKING for item in gate.requirements)
    if attested.decision.accepted and is_asked and approval_asked_by(gate).wants_envelope:
        tally = count_attested_answers(catalog, attested)
        if tally is None or tally.missing or tally.declined:
            return f"its signed approval does not hold: {tally.missing or 'declined' if tally else 'it has none'}"
        if entry.action is RefAction.PROMOTE and request and entry.seq > (after := request.after or 0) + 1:
            log = catalog.ref_log(entry.dataset, entry.ref).entries()[after : entry.seq - 1]
            last = next((each for each in reversed(log) if not why_unproved(catalog, each)), None)
            if last and request.after is not None and last.digest != request.digest:
                return "the target moved after its approval was requested"
    if entry.action is not RefAction.ROLLBACK:
        return ""
    # Which policy held is not known where an earlier release adopted them.
    own = adopted_policy(catalog, entry.dataset, attested.decision.adopted)
    policies = [policy.policy for policy in in_force] + [own] * (in_force[0].heads is None)
    specs = (spec_under(policy, entry.dataset) for policy in policies)
    may = any(authority_of(spec, entry.ref, lambda: catalog.id).counts(entry) for spec in specs)
    return "" if may else "nobody who may roll back signed it"


def export_answers(workspace: Workspace, attested: AttestedDecision, folder: Path) -> list[str]:
    """Write what `ssh-keygen -Y verify` needs to verify an attestation's answers; returns its command lines.

    The folder gets each answer's statement and signature, the policy's `allowed_signers`, and the lines as `verify.sh`.

    Raises:
        UsageError: No answer has an SSH signature, the folder has files, or the dataset never adopted the policy.
        CorruptRecord: This release can't read the policy.
    """
    decision, request = attested.decision, attested.request
    signed = [reply for reply in attested.approvals if isinstance(reply.envelope.get(SSHSIG), str)]
    if request is None or not signed:
        raise UsageError(
            f"No answer about {decision.dataset}@{decision.digest} for {decision.target} has an SSH signature",
            dataset=decision.dataset,
        )
    allowed_signers = approval_asked_by(gate_of(workspace.catalog, decision)).allowed_signers
    files, lines = {"allowed_signers": allowed_signers.encode()}, []
    try:
        for number, reply in enumerate(signed, 1):
            # Numbers, since names come from anybody.
            statement, signature = f"{number}.json", f"{number}.json.sig"
            files[statement] = canonical(answer_act(request, reply).statement)
            files[signature] = str(reply.envelope[SSHSIG]).encode()
            at = signed_moment(answer_act(request, reply))
            lines.append(verification_line(reply.approver.name, at, statement, signature))
        files["verify.sh"] = (SCRIPT + "\n".join(lines) + "\n").encode()
    except ValueError as error:
        raise UsageError(f"An answer of the attestation can't be read: {error}", dataset=decision.dataset) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(f"The folder {folder} has files", hint="Name a new or empty folder.")
        for name, data in files.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        raise UsageError(f"The answers can't be written to {folder}: {error.strerror}") from error
    return lines


def _is_about(request: ApprovalRequest, decision: Decision) -> bool:
    requested = (request.dataset, request.digest, request.target, request.policy, request.requester.name)
    return requested == (decision.dataset, decision.digest, decision.target, decision.policy, decision.requester)


def gate_of(catalog: Catalog, decision: Decision) -> Gate:
    """The gate that made a decision, by the policy of that time."""
    policy = adopted_policy(catalog, decision.dataset, decision.adopted)
    return spec_under(policy, decision.dataset).gate(decision.target)


def signed_by(catalog: Catalog, entry: RefEntry, keys: Sequence[str]) -> list[str]:
    """The keys that signed an entry's attestation, by the envelopes in the catalog.

    Raises:
        CorruptRecord: The record of the attestation's environment is gone or damaged.
    """
    if entry.attestation.get("_type") != STATEMENT_TYPE:
        return []
    statement = whole_statement(catalog, entry.attestation)
    envelopes = catalog.all(SIGNATURES, entry.dataset, statement_digest(statement))
    return sorted({key for envelope in envelopes for key in signers(envelope, statement, STATEMENT_PAYLOAD, keys)})
