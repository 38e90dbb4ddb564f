"""Signing a version's files, so that other tools can prove who published them.

The signature is a Sigstore bundle of OpenSSF Model Signing. It is kept in the catalog beside the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect_stagegate.cache.blob_verification import Pace
from prefect_stagegate.cache.checksums import checksums
from prefect_stagegate.catalog.version_records import read_manifest
from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.read import keep_dataset
from prefect_stagegate.jobs.upkeep.verify import VerifyProgress
from prefect_stagegate.model import Address
from prefect_stagegate.model.manifest import Manifest
from prefect_stagegate.plugins.signatures.signature_bundle import (
    MODEL_SIGNATURES,
    MOST_BYTES,
    key_id,
    read_chain,
    read_statement_key,
    sign_statement,
)
from prefect_stagegate.plugins.signatures.signed_files import DIGITS, LEFT_OUT, is_left_out, write_statement
from prefect_stagegate.units import bytes_text, count_text
from prefect_stagegate.workspace import Workspace

MOST_FILES = 400_000
"""The signature of more would be larger than any that is read."""
OWN = "blake3"
"""The algorithm of manifests, which costs no reading."""


def file_digests(workspace: Workspace, manifest: Manifest, algorithm: str, pace: Pace) -> Iterator[tuple[str, str]]:
    """The path and the digest in hex of each of a version's files, sorted by path.

    Args:
        workspace: Cache and catalog.
        manifest: The version's.
        algorithm: `blake3`, or a name that hashlib knows. Only for the latter this node's copy is read.
        pace: Bounds the reading.

    Raises:
        UnknownRef: The files are to be read, and this node lacks the version.
        CacheError: A file can't be read, or its bytes are not the manifest's.
    """
    if algorithm == OWN:
        yield from ((entry.path, entry.digest.removeprefix(f"{OWN}:")) for entry in manifest.entries())
        return
    with keep_dataset(workspace.cache, Address(manifest.dataset, manifest.digest), "signature") as held:
        yield from checksums(held.path, manifest.entries(), algorithm, pace)


@dataclass(frozen=True, slots=True)
class SignedVersion:
    """A version whose files were signed."""

    dataset: str
    digest: str
    algorithm: str
    """How its files were hashed."""
    files: int
    """Files that the signature covers."""
    left_out: tuple[str, ...]
    """Files that it leaves out: those of git, as the reference command does."""
    bytes_read: int
    key: str
    """The public key's id in hex."""
    bundle: Mapping[str, Any]
    """The signature, as JSON values."""


def sign(
    workspace: Workspace,
    address: Address,
    key: Path,
    *,
    algorithm: str = "sha256",
    certificates: Path | None = None,
    watch: VerifyProgress | None = None,
) -> SignedVersion:
    """Sign a version's files, and keep the signature in the catalog.

    Args:
        workspace: Cache and catalog.
        address: The version. Without a ref, `latest`.
        key: A private key in PEM: P-256, P-384 or P-521.
        algorithm: How files are named: by `sha256` this node's copy is read; by `blake3` nothing is.
        certificates: The key's certificate in PEM, and those of the authorities between it and a root.
        watch: Receives the progress of the reading.

    Raises:
        UsageError: The key or the certificates can't be used, the algorithm is unknown, or there are too many files,
            or none.
        UnknownRef: There is no such version, or it is to be read and is not on this node.
        CacheError: A file can't be read, or its bytes are not the manifest's. Nothing was signed then.
    """
    if algorithm not in DIGITS:
        raise UsageError(f"Unknown algorithm {algorithm!r}", hint=f"Known: {', '.join(DIGITS)}.")
    # Before the reading, which may take an hour.
    private = read_statement_key(key, workspace.ask_passphrase)
    chain = read_chain(certificates, private) if certificates else ()
    digest = workspace.catalog.resolve(address)
    manifest = read_manifest(workspace.catalog, address.dataset, digest)
    if manifest.files > MOST_FILES:
        problem = f"{count_text(manifest.files, 'file')} are too many for one signature: {MOST_FILES:,} at most"
        raise UsageError(problem, hint="Stage them as several datasets.", dataset=address.dataset)
    pace = Pace(workspace.settings.verify_rate, None, watch.read if watch else lambda _: None)
    if watch and algorithm != OWN:
        watch.expect(manifest.bytes)
    left_out: list[str] = []

    def digests() -> Iterator[tuple[str, str]]:
        for path, value in file_digests(workspace, manifest, algorithm, pace):
            if is_left_out(path, LEFT_OUT):
                left_out.append(path)
            else:
                yield path, value

    statement = write_statement(address.dataset, algorithm, digests())
    bundle = sign_statement(statement, private, chain)
    covered = manifest.files - len(left_out)
    if not covered:
        raise UsageError("The version has no file to sign", dataset=address.dataset)
    if (size := len(json.dumps(bundle))) > MOST_BYTES:
        problem = f"The signature would have {bytes_text(size)}, and nobody reads more than {bytes_text(MOST_BYTES)}"
        raise UsageError(problem, hint="Stage the files as several datasets.", dataset=address.dataset)
    workspace.catalog.add(MODEL_SIGNATURES, dict(bundle), address.dataset, digest)
    identifier = key_id(private.public_key())
    return SignedVersion(address.dataset, digest, algorithm, covered, tuple(left_out), pace.bytes, identifier, bundle)
