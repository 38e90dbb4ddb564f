"""Signatures.

The check that somebody whom the gate trusts signed the version's files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from prefect_stagegate.cache.blob_verification import Pace
from prefect_stagegate.cache.checksums import proved_bytes
from prefect_stagegate.gate.base import CheckResult, Parameters, one_finding
from prefect_stagegate.gate.check_context import Binding, CheckContext, Fact, FreshFact
from prefect_stagegate.gate.registry import Check, Renewal
from prefect_stagegate.jobs.read import keep_dataset
from prefect_stagegate.model import Address, Entry, Finding, Outcome
from prefect_stagegate.plugins.signatures.sign import file_digests
from prefect_stagegate.plugins.signatures.signature_bundle import (
    CODE_SIGNING,
    MODEL_SIGNATURES,
    MOST_BYTES,
    TrustedSigners,
    certificate_problem,
    proved_statement,
    public_key_problem,
)
from prefect_stagegate.plugins.signatures.signed_files import SignatureRefused, is_left_out, read_statement
from prefect_stagegate.spec.fields import WRITTEN, Text
from prefect_stagegate.units import bytes_text, count_text

SHOWN = 50
"""Files that are named of each kind of difference; the rest is only counted."""
MOST_FINDINGS = 200
"""Findings about the catalog's signatures in one result."""
MOST_SIGNATURES = 1000
"""Signatures of the catalog that are read, the newest first."""
MOST_READ = 512 << 20
"""Bytes of these after which no older one is read."""
IN_CATALOG = "the catalog's signature"


def _key(pem: str) -> str:
    if problem := public_key_problem(pem):
        raise ValueError(problem)
    return pem


def _certificate(pem: str) -> str:
    if problem := certificate_problem(pem):
        raise ValueError(problem)
    return pem


def _json(text: str) -> str:
    try:
        if text:
            json.loads(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    return text


class SignerIdentity(Parameters):
    """Somebody whom Sigstore vouches for."""

    subject: Text = Field(description="A mail address or a URL.", examples=["release@example.org"])
    issuer: Text = Field(
        description="The URL of the OpenID provider that knows the subject.", examples=["https://accounts.google.com"]
    )
    trust_root: Annotated[str, AfterValidator(_json)] = Field(
        default="",
        description="The contents of `trusted_root.json` of a Sigstore instance; by default the public one's.",
        examples=['{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}'],
    )


class SignatureParameters(Parameters):
    """At least one of `keys`, `certificates` and `identity` must be given: nobody is trusted by default."""

    of: Literal["oms"] = Field(default="oms", description="The format: OpenSSF Model Signing.", examples=["oms"])
    keys: tuple[Annotated[str, AfterValidator(_key)], ...] = Field(
        default=(),
        max_length=20,
        description="Public keys in PEM whose signature counts: P-256, P-384 or P-521.",
        examples=[["-----BEGIN PUBLIC KEY-----\n…\n-----END PUBLIC KEY-----\n"]],
    )
    certificates: tuple[Annotated[str, AfterValidator(_certificate)], ...] = Field(
        default=(),
        max_length=20,
        description="Certificates of authorities in PEM; a signature counts by a valid certificate below any of "
        "them that `signers` names and that is for `purpose`.",
        examples=[["-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n"]],
    )
    signers: tuple[Text, ...] = Field(
        default=(),
        max_length=20,
        description="Whose certificates below `certificates` count: globs of the subject (`CN=Release,O=Example`) or "
        "of an alternative name. Needed with `certificates`.",
        examples=[["release@example.org"]],
        exclude_if=lambda signers: not signers,  # policies of earlier releases keep their digests
    )
    purpose: str = Field(
        default=CODE_SIGNING,
        pattern=r"^\d+(\.\d+)+$",
        description="The extended key usage that these certificates must have, by default code signing.",
        examples=[CODE_SIGNING],
        exclude_if=lambda purpose: purpose == CODE_SIGNING,
    )
    identity: SignerIdentity | None = Field(
        default=None,
        description="Whose signature counts, as Sigstore vouches for them. Needs the extra `oms`.",
        examples=[{"subject": "release@example.org", "issuer": "https://accounts.google.com"}],
    )
    signature: Text = Field(
        default="model.sig",
        description="The path of the publisher's signature among the version's files. The names in it are relative "
        "to its folder.",
        examples=["model.sig"],
    )
    ignore: tuple[Text, ...] = Field(
        default=(),
        description="Paths that need not be signed, or their folders, relative to the signature. Files of git are "
        "never signed.",
        examples=[[".gitattributes", "README.md"]],
    )
    partial: bool = Field(
        default=False,
        description="Whether the version may have other files that are not signed. They are named.",
        examples=[True],
    )

    @model_validator(mode="after")
    def _names_somebody(self, info: ValidationInfo) -> Self:
        # A policy of an earlier release stays readable: there, no certificate counts.
        if self.certificates and not self.signers and info.context == WRITTEN:
            raise ValueError("`certificates` needs `signers`: else anybody whom the authority vouches for could sign")
        return self

    def trusted(self) -> TrustedSigners:
        """Whose signature counts."""
        trusted = TrustedSigners(self.keys, self.certificates, self.signers, self.purpose)
        if self.identity is None:
            return trusted
        who = self.identity
        return replace(trusted, subject=who.subject, issuer=who.issuer, trust_root=who.trust_root)


@Fact
def signature_numbers(context: CheckContext) -> Sequence[int]:
    """The numbers of the signatures of the version's files that the catalog keeps, the newest first."""
    return context.workspace.catalog.numbers(MODEL_SIGNATURES, context.dataset, context.digest)[::-1]


@FreshFact
def kept_signatures(context: CheckContext) -> Iterator[bytes]:
    """These signatures, read one by one. Each call gives the same, since answers are bound to them."""
    records = context.workspace.catalog.records
    key = (context.dataset, context.digest)
    # One byte more, so that a signature that is too large shows.
    paths = (MODEL_SIGNATURES.path(*key, number) for number in signature_numbers(context))
    return (records.read_end(path, MOST_BYTES + 1) or b"" for path in paths)


@FreshFact
def digests_of_files(context: CheckContext, algorithm: str) -> Iterator[tuple[str, str]]:
    """The path and the digest in hex of each file by an algorithm, as `sha256`, sorted by path.

    Those by `blake3` are the manifest's. For others this node's copy is read, and proved by the manifest.
    """
    pace = Pace(context.workspace.settings.verify_rate, context.cancel)
    return file_digests(context.workspace, context.manifest, algorithm, pace)


@FreshFact
def file_bytes(context: CheckContext, entry: Entry) -> bytes:
    """The bytes of one of the version's files, from this node's copy and proved by the manifest."""
    with keep_dataset(context.workspace.cache, Address(context.dataset, context.digest), "signature") as held:
        return proved_bytes(held.path, entry)


BOUND_SIGNATURES = 20
"""Signatures, the newest first, that an answer is bound to: a further one is always among them."""
SIGNATURES = Binding(
    "signatures",
    lambda context: (
        ", ".join(sha256(data).hexdigest() for data in islice(kept_signatures(context), BOUND_SIGNATURES)) or "none"
    ),
)


@Check("signature", owner="data", binds=(SIGNATURES,), renewal=Renewal.SETTLED)
def signature(context: CheckContext, parameters: SignatureParameters) -> CheckResult:
    """Whether somebody whom the gate trusts signed the version's files, in the format of OpenSSF Model Signing.

    A valid signature of exactly these files passes: the publisher's among the files (`model.sig`), or one that
    `stagegate sign` made. No signature, one by somebody else, and a file that is changed, missing or not signed fail. A
    gate that trusts nobody is inconclusive. Files are read where the signature has other digests than BLAKE3.
    """
    trusted = parameters.trusted()
    if not (trusted.keys or trusted.roots or trusted.subject):
        fix = (
            f"Write the publisher's `keys`, `certificates` or `identity` below signature in the gate {context.target}."
        )
        return one_finding(Outcome.INCONCLUSIVE, "signature", "the gate trusts nobody's signature", fix)
    findings: list[Finding] = []
    # The catalog's first: they cost no copy on this node.
    for bundles in (_kept(context, findings), _published(context, parameters.signature)):
        if passed := _first_valid(context, parameters, bundles, findings):
            return passed
        # Many that were signed by the same stranger give one finding.
        findings = list(dict.fromkeys(findings))[:MOST_FINDINGS]
    if findings:
        worst = findings[0]
        return CheckResult(Outcome.FAIL, f"{worst.subject}: {worst.problem}", tuple(findings))
    fix = f"Ask the publisher for it, or sign the version yourself: stagegate sign {context.address} --key KEY.pem"
    problem = "neither the version nor the catalog has a signature of its files"
    return one_finding(Outcome.FAIL, parameters.signature, problem, fix)


Bundle = tuple[str, bytes]
"""A bundle and its name for people."""


def _kept(context: CheckContext, findings: list[Finding]) -> Iterator[Bundle]:
    """The catalog's signatures, the newest first; a finding says where some are too many to be read."""
    size = 0
    for number, data in enumerate(kept_signatures(context)):
        size += len(data)
        if number == MOST_SIGNATURES or size > MOST_READ:
            problem = f"there are more than the newest {number:,}, which are read"
            findings.append(Finding(IN_CATALOG, problem, f"stagegate sign {context.address} --key KEY.pem"))
            return
        yield IN_CATALOG, data


def _published(context: CheckContext, path: str) -> list[Bundle]:
    """The publisher's signature among the version's files; empty data for one that is too large to be one."""
    entry = next((entry for entry in context.entries() if entry.path == path), None)
    if entry is None:
        return []
    return [(path, file_bytes(context, entry) if entry.size <= MOST_BYTES else b"")]


class _Comparison:
    """A proved signature's files, compared with the version's."""

    def __init__(self, name: str, data: bytes, parameters: SignatureParameters) -> None:
        """Raises `SignatureRefused` where the signature proves nothing."""
        if not data or len(data) > MOST_BYTES:
            raise SignatureRefused(f"it is empty, or larger than {bytes_text(MOST_BYTES)}")
        statement, self.signer = proved_statement(data, parameters.trusted())
        signed = read_statement(statement)
        # A publisher's files may lie in a folder of the dataset, with their signature.
        self._folder = name.rpartition("/")[0] + "/" if "/" in name else ""
        self.name, self.algorithm = name, signed.algorithm
        self.digests = {self._folder + path: digest for path, digest in signed.digests.items()}
        self._parameters = parameters
        self.signed = self.compared = 0
        """Files of the version that it covers, and of which the digests were compared."""
        self.unsigned: list[str] = []
        self.missing: list[str] = []
        self.changed: list[str] = []

    def compare_names(self, entries: Iterable[Entry]) -> None:
        """Find the files that only the version has, or only the signature."""
        missing = dict.fromkeys(self.digests)
        for entry in entries:
            if entry.path in missing:
                del missing[entry.path]
                self.signed += 1
            elif not self._is_excused(entry.path):
                self.unsigned.append(entry.path)
        self.missing = [path for path in missing if not self._is_excused(path)]

    def compare(self, path: str, digest: str) -> None:
        """Compare one file's digest with what was signed."""
        self.compared += path in self.digests
        if self.digests.get(path, digest) != digest:
            self.changed.append(path)

    def _is_excused(self, path: str) -> bool:
        below = path.removeprefix(self._folder)
        return path == self._parameters.signature or any(
            is_left_out(each, self._parameters.ignore) for each in (path, below)
        )

    @property
    def has_these_names(self) -> bool:
        """Whether the version has the files that were signed, and no others."""
        return bool(self.signed) and not self.missing and (self._parameters.partial or not self.unsigned)

    def findings(self) -> list[Finding]:
        """How the version differs from what was signed; empty when it does not."""
        unsigned = [] if self._parameters.partial and self.signed else self.unsigned
        return [
            *_each(self.changed, "its bytes are not those that were signed", "Fetch it from the publisher again."),
            *_each(
                self.missing,
                "it was signed, and the version lacks it",
                "Stage all that was signed: see `include` and `exclude` of the source.",
            ),
            *_each(
                unsigned,
                "it is not signed",
                "Ask the publisher to sign it, leave it out of the source, or name it below `ignore`.",
            ),
        ]

    def passed(self) -> CheckResult:
        """The result for a version that has what was signed."""
        unsigned = tuple(_each(self.unsigned, "it is not signed", "", Outcome.WARN))
        more = f"; {count_text(len(self.unsigned), 'file')} not signed" if unsigned else ""
        measured = {
            "signer": self.signer,
            "signature": self.name,
            "algorithm": self.algorithm,
            "files": self.signed,
            "unsigned": len(self.unsigned),
        }
        signed = count_text(self.signed, "file")
        return CheckResult(Outcome.PASS, f"{signed} signed by {self.signer}{more}", unsigned, measured)


def _first_valid(
    context: CheckContext, parameters: SignatureParameters, bundles: Iterable[Bundle], findings: list[Finding]
) -> CheckResult | None:
    """The result for the first signature that holds for the version; None, and why in `findings`, when none does."""
    compared: list[_Comparison] = []
    for name, data in bundles:
        try:
            comparison = _Comparison(name, data, parameters)
        except SignatureRefused as refused:
            fix = "Ask the publisher which key or identity signs, and for the signature of this version."
            findings.append(Finding(name, f"the signature does not count: {refused}", fix))
            continue
        comparison.compare_names(context.entries())
        if comparison.has_these_names:
            compared.append(comparison)
        else:
            findings += comparison.findings()
    # Files are read once for all signatures of one algorithm; BLAKE3, which reads none, comes first.
    compared.sort(key=lambda comparison: comparison.algorithm != "blake3")
    for algorithm in dict.fromkeys(comparison.algorithm for comparison in compared):
        comparisons = [comparison for comparison in compared if comparison.algorithm == algorithm]
        for path, digest in digests_of_files(context, algorithm):
            for comparison in comparisons:
                comparison.compare(path, digest)
        # Nothing is proved of a file that was not read.
        if valid := next((each for each in comparisons if each.compared == each.signed and not each.findings()), None):
            return valid.passed()
    findings += [finding for each in compared for finding in each.findings()]
    return None


def _each(paths: Sequence[str], problem: str, fix: str, outcome: Outcome = Outcome.FAIL) -> list[Finding]:
    """A finding for each of the first paths, and one that counts the rest."""
    subjects = [*paths[:SHOWN], *([count_text(len(paths) - SHOWN, "more file")] if len(paths) > SHOWN else ())]
    return [Finding(subject, problem, fix, outcome) for subject in subjects]
