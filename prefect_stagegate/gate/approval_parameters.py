"""What a policy asks of an approval: how many people, which of them, and the keys by which they sign."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from prefect_stagegate.gate.base import Parameters
from prefect_stagegate.gate.records.allowed_signers import fingerprint_of, read_allowed_signers
from prefect_stagegate.model import RECORDED, KnownBy
from prefect_stagegate.spec import Gate
from prefect_stagegate.spec.fields import FileText, PublicKey
from prefect_stagegate.spec.models import Owner

APPROVAL = "approval"
"""The name of the check."""
_ISSUER = r"^(https?://\S+|header:[A-Za-z0-9-]+)$"
IssuerUrl = Annotated[str, Field(pattern=_ISSUER, max_length=512, examples=["https://login.example.org"])]
"""A provider's URL, or `header:NAME` for a trusted proxy's header."""
PersonName = Annotated[str, Field(min_length=1, max_length=256)]
LONGEST_SIGNERS = 64 << 10
"""Characters of `allowed_signers`."""
_LATER = ("allowed_signers", "required", "proof", "logins")
"""Parameters that are left out where nothing is written, so that earlier policies keep their digests."""


class LoginParameters(Parameters):
    """Whose word that a person logged in counts, and as what."""

    keys: tuple[PublicKey, ...] = Field(
        default=(),
        max_length=20,
        description="The Ed25519 keys of the servers whose logins count, as `stagegate key` prints them.",
        examples=[["ed25519:" + "0f" * 32]],
    )
    groups: dict[Owner, tuple[PersonName, ...]] = Field(
        default={},
        description="Groups of the login's provider whose members belong to a group of `owners`, beside its addresses.",
        examples=[{"infra": ["platform-approvers"]}],
    )
    issuers: tuple[IssuerUrl, ...] = Field(
        default=(),
        max_length=20,
        description="The providers whose logins count; by default each that these servers trust.",
        examples=[["https://login.example.org"]],
    )


class ApprovalParameters(Parameters):
    """One is GitHub's and Argo's habit; the requester never counts."""

    count: int = Field(default=1, ge=1, le=20, description="How many people must agree.", examples=[2])
    groups: tuple[Owner, ...] = Field(
        default=(),
        alias="from",
        description="Groups of `owners` that they belong to; by default anybody may agree.",
        examples=[["infra"]],
    )
    signed: bool = Field(
        default=False,
        description="Whether an answer needs a signature by a key under `keys` or `allowed_signers`.",
        examples=[True],
    )
    asked_proof: KnownBy = Field(
        default="declared",
        alias="proof",
        description="How the name of whoever answers must be known, at least.",
        examples=["os-user"],
    )
    logins: LoginParameters = Field(
        default_factory=LoginParameters,
        description="The servers whose logins prove a name.",
        examples=[{"keys": ["ed25519:" + "0f" * 32], "groups": {"infra": ["platform-approvers"]}}],
    )
    keys: dict[str, PublicKey] = Field(
        default={},
        description="The Ed25519 keys of people by name, as `stagegate key` prints them.",
        examples=[{"ines@example.org": "ed25519:" + "0f" * 32}],
    )
    allowed_signers: FileText = Field(
        default="",
        description="People's SSH keys, in OpenSSH's format of this name: a file relative to the spec, or its lines. "
        "Principals are names as `--identity` has them. Times without a zone are UTC.",
        examples=["allowed_signers"],
    )
    required: tuple[PersonName, ...] = Field(
        default=(),
        max_length=20,
        description="People who must be among those who agree.",
        examples=[["ines@example.org"]],
    )

    @field_validator("allowed_signers")
    @classmethod
    def _lines(cls, text: str) -> str:
        if len(text) > LONGEST_SIGNERS:
            raise ValueError(f"must have at most {LONGEST_SIGNERS >> 10} KiB")
        if text and not list(read_allowed_signers(text)):
            raise ValueError("has no line with a key")
        return text

    @model_validator(mode="before")
    @classmethod
    def _signed_by_proof(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("proof") == "signature":
            return {"signed": True, **given}
        return given

    @model_validator(mode="after")
    def _provable(self) -> ApprovalParameters:
        if "asked_proof" in self.model_fields_set and self.signed != (self.asked_proof == "signature"):
            raise ValueError("`signed: true` goes with `proof: signature` alone; leave `signed` out")
        if not self.logins.keys and (self.proof == "login" or self.logins != LoginParameters()):
            raise ValueError(
                "`proof: login` and `logins` need `logins.keys`, the public keys of the servers where people log in; "
                "`stagegate key FILE` prints one"
            )
        if self.proof == "prefect-actor" and not (self.logins.keys or self.keys):
            raise ValueError(
                "no record proves an actor of Prefect; ask for `login`, with `logins.keys`, or `signature`"
            )
        return self

    @model_validator(mode="after")
    def _signable(self) -> ApprovalParameters:
        if self.signed and not (self.keys or self.allowed_signers):
            raise ValueError("`signed` needs the `keys` or the `allowed_signers` of those who may answer")
        if self.allowed_signers and not self.signed:
            raise ValueError("`allowed_signers` needs `signed: true`; without it unsigned answers count")
        return self

    @property
    def proof(self) -> KnownBy:
        """How a name must be known, at least. `signed` alone asks for signatures, but not of whoever asked."""
        return "signature" if self.signed else self.asked_proof

    @property
    def wants_envelope(self) -> bool:
        """Whether names need a signature that can be verified later: the person's, or of the server of a login."""
        return self.proof not in RECORDED

    def signing_keys(self) -> frozenset[str] | None:
        """The fingerprints of the keys whose answers count; None where authorities certify others."""
        signers = list(read_allowed_signers(self.allowed_signers))
        if any(signer.is_authority for signer in signers):
            return None
        return frozenset((*map(fingerprint_of, self.keys.values()), *(signer.fingerprint for signer in signers)))

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unwritten = {
            field.alias or name
            for name, field in type(self).model_fields.items()
            if getattr(self, name) == field.get_default(call_default_factory=True)
        }
        return {key: value for key, value in write(self).items() if key not in unwritten.intersection(_LATER)}


def approval_asked_by(gate: Gate) -> ApprovalParameters:
    """What a gate asks of an approval; the defaults where it asks for none."""
    required = (requirement.params for requirement in gate.requirements if requirement.check == APPROVAL)
    return ApprovalParameters.model_validate(next(required, {}))
