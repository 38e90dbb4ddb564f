"""The fields of an attestation that a ref's log checks: the version that was decided on, and the outcome.

`readiness.records.attest` reads the whole Statement, for `history --verify`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect_stagegate.errors import CorruptRecord


@dataclass(frozen=True, slots=True)
class DecisionSummary:
    """The fields of a decision that decide whether a ref may name its version."""

    dataset: str
    digest: str
    target: str
    accepted: bool
    adopted: str
    """`sha256:<hex>` of the dataset's policy under which the decision was made."""
    after: int
    """The number of the target's last move at the time of the decision; 0 before the first."""


def read_decision(statement: Mapping[str, Any]) -> DecisionSummary:
    """Read these fields from an in-toto Statement.

    Raises:
        CorruptRecord: A field is missing, or the Statement's subject or result contradicts the decision in it.
    """
    try:
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
