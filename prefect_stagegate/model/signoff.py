"""What people decide about versions, and who they are: requests, answers, waivers and revocations.

Only the standard library is imported here: short commands load this module.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

KnownBy = Literal["declared", "os-user", "prefect-form", "prefect-actor", "login", "signature"]
"""How a name is known, the weakest first. `declared` and `prefect-form`: somebody wrote it into a setting or a flag, or
into Prefect's form. `login`: a server, where the person logged in, signed for it; `signature`: the person signed."""
PROOFS: tuple[KnownBy, ...] = get_args(KnownBy)
RECORDED: tuple[KnownBy, ...] = ("declared", "os-user", "prefect-form")
"""Proofs that nobody can verify later: the record says so. Of the others a signature does."""


def person_key(name: str) -> str:
    """A key that is equal for all spellings of a person's name: it ignores case, spaces and invisible characters.

    >>> person_key(" Ines@Example.org\u200b") == person_key("ines@example.org")
    True
    """
    spelled = " ".join(unicodedata.normalize("NFKC", name).split())
    return "".join(letter for letter in spelled if unicodedata.category(letter) not in ("Cc", "Cf")).strip().casefold()


def is_proof_enough(proof: KnownBy, least: KnownBy) -> bool:
    """Whether a name is known at least as well as `least` asks.

    >>> is_proof_enough("os-user", "declared"), is_proof_enough("os-user", "login")
    (True, False)
    """
    return PROOFS.index(proof) >= PROOFS.index(least)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who did something, and how the name is known."""

    name: str
    source: KnownBy
    """As the record says, see `KnownBy`: `login` and `signature` count only where a signature beside it proves them."""

    def __str__(self) -> str:
        return f"{self.name} ({self.source})"


@dataclass(frozen=True)  # without slots, see `__post_init__`
class ApprovalRequest:
    """A recorded request to promote a version, which waits for approval."""

    id: str
    dataset: str
    digest: str
    """The requested version: an answer approves no other."""
    target: str
    policy: str
    """`sha256:<hex>` of the policy of the decision. An answer is valid only under that policy."""
    requester: Identity
    at: str
    after: int | None = None
    """The number of the target's last move then, 0 before the first. Once the target moves to another version, answers
    no longer count. None where it isn't recorded: then answers count wherever the target is."""
    catalog: str = ""
    """The id of the catalog that it was made in. Empty in records of earlier releases."""
    shown: Mapping[str, str] = field(default_factory=dict)
    """What was shown to those who answer: the outcome of each blocking check, or the id of its waiver. Empty for a
    policy's request, and in records of earlier releases."""
    envelope: Mapping[str, Any] | None = None
    """The signature of whoever asked, as in `Approval`; None if unsigned."""

    def __post_init__(self) -> None:
        if not self.envelope:
            # Then records and documents are as those of earlier releases: they have what is in `__dict__`.
            vars(self).pop("envelope", None)

    def signed(self) -> dict[str, Any]:
        """The fields that answers are bound to, without those that the record's release did not know."""
        later = ("catalog", "shown")
        return {
            name: value for name, value in asdict(self).items() if name != "envelope" and (value or name not in later)
        }

    def is_of(self, catalog: str) -> bool:
        """Whether it was made in the catalog of this id; those of earlier releases don't say."""
        return not self.catalog or self.catalog == catalog


@dataclass(frozen=True, slots=True)
class Revocation:
    """The end of a waiver before its time."""

    who: Identity
    at: str
    reason: str
    envelope: Mapping[str, Any] = field(default_factory=dict)
    """The signature, as in `Approval`."""


@dataclass(frozen=True, slots=True)
class Waiver:
    """A person's temporary acceptance of one check's failure, for one version at one target."""

    id: str
    dataset: str
    digest: str
    """The only version that it is valid for."""
    target: str
    check: str
    parameters: str
    """`sha256:<hex>` of the check's parameters then. It is not valid for other thresholds."""
    reason: str
    approver: Identity
    """Who is responsible for it; never the requester."""
    requester: str
    """Who had requested the gate's decision when it was granted."""
    at: str
    until: str
    """When it ends, 30 days after `at` at most."""
    revoked: Revocation | None = None
    contract: str = ""
    """`sha256:<hex>` of the contract that the check failed by. It is not valid for another one. Empty for a check that
    does not depend on the contract, and in records of earlier releases."""
    envelope: Mapping[str, Any] = field(default_factory=dict)
    """The signature, as in `Approval`."""

    @property
    def who(self) -> Identity:
        """The name that other records have for the approver."""
        return self.approver

    def __str__(self) -> str:
        return f"waived by {self.approver} until {self.until[:16]}Z: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceRevocation:
    """The end of one check's evidence about one version. Later evidence counts."""

    dataset: str
    digest: str
    check: str
    target: str = ""
    """Ends only evidence that is bound to this target; empty for all of the check's evidence."""
    reason: str
    who: Identity
    at: str
    ahead: tuple[str, ...] = ()
    """Times after `at` of evidence that was on record before: its node's clock was ahead."""
    envelope: Mapping[str, Any] = field(default_factory=dict)
    """The signature, as in `Approval`."""

    def __str__(self) -> str:
        return f"revoked by {self.who} {self.at[:16]}Z: {self.reason}"

    @property
    def about(self) -> str:
        """The evidence that it ends: `schema of nycflights@sha256:…`."""
        target = f" at {self.target}" if self.target else ""
        return f"{self.check}{target} of {self.dataset}@{self.digest}"


@dataclass(frozen=True, slots=True)
class Wait:
    """A flow run that is suspended until a request is answered."""

    request: str
    """The request's id."""
    flow_run: str
    """The run's id in Prefect."""
    until: str
    """When the run gives up."""
    at: str


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's answer to a request."""

    request: str
    """The request's id."""
    approver: Identity
    approved: bool
    """False when the version was declined."""
    reason: str
    at: str
    envelope: Mapping[str, Any] = field(default_factory=dict)
    """The DSSE envelope around the answer, by the person or by the server of their login, or `{"sshsig": …}` with an
    armored SSH signature; empty if unsigned."""
