"""The gates' decisions about a version, as artifacts that refer to it: `oras discover` shows them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect_stagegate.catalog.gate_records import SIGNATURES, decision_numbers, newest_attestation
from prefect_stagegate.errors import ObjectVanished
from prefect_stagegate.gate.records.attest import decision_of, statement_digest
from prefect_stagegate.gate.records.signing import STATEMENT_PAYLOAD, envelopes_around
from prefect_stagegate.model.canonical import canonical
from prefect_stagegate.plugins.exchange.oci.artifact import DECISION, INDEX, MANIFEST, TITLE, Descriptor, index_with
from prefect_stagegate.plugins.exchange.oci.registry_client import RegistryClient
from prefect_stagegate.workspace import Workspace

ENVELOPE = "application/vnd.dsse.envelope.v1+json"
"""The media type of a signed Statement."""
DECIDED = "application/vnd.stagegate.decision.v1+json"
"""The media type of a decision with the evidence of its checks."""
EMPTY = "application/vnd.oci.empty.v1+json"
PREDICATE = "in-toto.io/predicate-type"
OUTCOME = "io.stagegate.outcome"
TARGET = "io.stagegate.target"


@dataclass(frozen=True, slots=True)
class Referrer:
    """An artifact about a version: one target's decision, or its attestation."""

    target: str
    artifact_type: str
    contents: tuple[bytes, ...]
    annotations: Mapping[str, str]

    @property
    def kind(self) -> str:
        """`decision` or `attestation`."""
        return "decision" if self.artifact_type == DECIDED else "attestation"


def recorded_decisions(workspace: Workspace, dataset: str, digest: str) -> dict[str, Mapping[str, Any]]:
    """The newest Statement of each target's gate about a version, by target."""
    statements = {
        target: newest_attestation(workspace.catalog, dataset, digest, target)
        for target in decision_numbers(workspace.catalog, dataset, digest)
    }
    return {target: statement for target, statement in sorted(statements.items()) if statement}


def decision_annotations(statements: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The annotations of a version's manifest that name its decisions."""
    return {f"{DECISION}{target}": statement_digest(statement) for target, statement in statements.items()}


def referrers_of(workspace: Workspace, dataset: str, statements: Mapping[str, Mapping[str, Any]]) -> Iterator[Referrer]:
    """A decision and an attestation for each target: the attestation signed, where somebody signed it.

    Raises:
        CorruptRecord: This release can't read a decision.
    """
    for target, statement in statements.items():
        facts = {TARGET: target, OUTCOME: str(decision_of(statement).outcome)}
        yield Referrer(target, DECIDED, (canonical(statement["predicate"]["stagegate"]["decision"]),), facts)
        signatures = workspace.catalog.all(SIGNATURES, dataset, statement_digest(statement))
        envelopes = envelopes_around(statement, signatures)
        kind = ENVELOPE if envelopes else STATEMENT_PAYLOAD
        facts = {**facts, PREDICATE: str(statement["predicateType"])}
        contents: Sequence[Mapping[str, Any]] = envelopes or (statement,)
        yield Referrer(target, kind, tuple(map(canonical, contents)), facts)


def push_referrer(client: RegistryClient, subject: Descriptor, referrer: Referrer) -> tuple[str, bool]:
    """Store a referrer, unless the registry has it; returns its digest, and whether it was stored.

    Registries without the referrers API get the list of a subject's referrers under the tag `sha256-<hex>`, as the OCI
    distribution specification says; clients look there.

    Raises:
        SourceError: The registry refuses it.
    """
    layers = [_pushed(client, content, referrer, number) for number, content in enumerate(referrer.contents, 1)]
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": referrer.artifact_type,
            "config": _pushed_blob(client, b"{}", EMPTY).as_json(),
            "layers": [layer.as_json() for layer in layers],
            "subject": Descriptor(subject.media_type, subject.digest, subject.size).as_json(),
            "annotations": dict(referrer.annotations),
        }
    )
    descriptor = Descriptor.of(manifest, MANIFEST, referrer.annotations, referrer.artifact_type)
    is_new = not client.has("manifests", descriptor.digest)
    headers = client.push_manifest(descriptor.digest, manifest)
    if "oci-subject" not in headers:
        is_new |= _list_in_tag(client, subject.digest, descriptor)
    return descriptor.digest, is_new


def _list_in_tag(client: RegistryClient, subject: str, descriptor: Descriptor) -> bool:
    """Add a referrer to the index under the subject's tag; False where it is there."""
    tag = re.sub("^sha256:", "sha256-", subject)
    try:
        body: bytes | None = client.manifest(tag)[0]
    except ObjectVanished:
        body = None
    index = index_with(body, descriptor, tag)
    if index:
        client.push_manifest(tag, index, INDEX)
    return index is not None


def _pushed(client: RegistryClient, content: bytes, referrer: Referrer, number: int) -> Descriptor:
    more = f".{number}" if len(referrer.contents) > 1 else ""
    return _pushed_blob(
        client, content, referrer.artifact_type, {TITLE: f"{referrer.kind}.{referrer.target}{more}.json"}
    )


def _pushed_blob(
    client: RegistryClient, content: bytes, media_type: str, annotations: Mapping[str, str] | None = None
) -> Descriptor:
    descriptor = Descriptor.of(content, media_type, annotations)
    client.push_missing(descriptor.digest, content)
    return descriptor
