"""Moves of a target's ref, written round operations: for tests of readers, which believe no move without a decision."""

from __future__ import annotations

from prefect_stagegate.catalog import Catalog, RefAction, RefEntry
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.gate.records.attest import attest
from prefect_stagegate.model import Decision, DecisionOutcome, Identity
from prefect_stagegate.testing.contexts import ENVIRONMENT
from tests.support.versions import adopt_policy, policy_log

WHO = Identity("ann", "os-user")


def move_target(
    catalog: Catalog,
    dataset: str,
    target: str,
    digest: str,
    *,
    action: RefAction = RefAction.PROMOTE,
    withdrawn: str = "",
) -> RefEntry:
    """Move a target's ref by a decision that accepts the version; a withdrawal moves nothing."""
    policy = {"gates": {target: {"require": ["license"]}}}
    adopted = policy_log(catalog, dataset).head() or adopt_policy(
        catalog, dataset, policy, head=None, who=WHO, reason="for a test"
    )
    head = catalog.ref(dataset, target)
    decision = Decision(
        dataset=dataset,
        digest=digest,
        target=target,
        outcome=DecisionOutcome.ACCEPTED,
        checks=(),
        policy="sha256:" + "0" * 64,
        environment=ENVIRONMENT.fingerprint,
        at=stamp(now()),
        adopted=adopted.digest,
        after=head.seq if head else 0,
    )
    statement = attest(decision, ENVIRONMENT)
    return catalog.move_ref(
        dataset, target, digest, head=head, action=action, who=WHO, withdrawn=withdrawn, attestation=statement
    )
