"""Push a version to an OCI registry, in ModelPack's form for datasets: `plugins/exchange/oci/artifact.py` draws it.

    version here (else fetched) → SHA-256 of each layer → the manifest → layers that the registry lacks → manifest and
    tag → decisions as referrers

The same version gives the same manifest, so pushing it again sends nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any, Literal, TypeVar

from prefect_stagegate.catalog.version_records import read_manifest
from prefect_stagegate.errors import SourceError, UsageError
from prefect_stagegate.jobs.address import spec_beside
from prefect_stagegate.jobs.runner import step
from prefect_stagegate.jobs.staging.fetch import present
from prefect_stagegate.model import Address, Pin, Receipt, SourceObject
from prefect_stagegate.model.canonical import canonical
from prefect_stagegate.model.manifest import Manifest, row
from prefect_stagegate.plugins.exchange.oci.artifact import (
    CONFIG,
    DATASET,
    DOCUMENT,
    FILEPATH,
    FILES,
    LARGEST_MANIFEST,
    LARGEST_ROWS,
    MANIFEST,
    RAW,
    TAR,
    TITLE,
    VERSION,
    Descriptor,
    artifact_manifest,
)
from prefect_stagegate.plugins.exchange.oci.oci_reference import OciReference
from prefect_stagegate.plugins.exchange.oci.registry_client import RegistryClient
from prefect_stagegate.plugins.exchange.oci.registry_login import UPLOAD_IDLE
from prefect_stagegate.plugins.exchange.oci.shards import LayerFiles, layers_of
from prefect_stagegate.plugins.exchange.publishing.layer_bodies import LayerBody, layer_digest
from prefect_stagegate.plugins.exchange.publishing.referrers import (
    Referrer,
    decision_annotations,
    push_referrer,
    recorded_decisions,
    referrers_of,
)
from prefect_stagegate.redaction import remember_access
from prefect_stagegate.sources.terms import Terms
from prefect_stagegate.transport.transfer.progress import Progress, TransferStats
from prefect_stagegate.transport.transfer.retry import Budget, Retrier, Stop
from prefect_stagegate.transport.transfer_limits import Limits
from prefect_stagegate.units import bytes_text, count_text
from prefect_stagegate.workspace import Workspace

By = Literal["file", "shard"]
T = TypeVar("T")
Result = TypeVar("Result")

MOST_LAYERS = 1000
"""Files that get a layer each where the caller does not choose."""
UNKNOWN = "sha256:" + 64 * "0"
"""In place of a digest that is not computed yet."""
UPLOADS = 4
"""Layers that are sent, or hashed, at a time."""
RETRIES = 20
"""Failed requests that one push makes up for."""


@dataclass(frozen=True, slots=True)
class PushedReferrer:
    """A decision or an attestation in the registry."""

    target: str
    kind: str
    """`decision` or `attestation`."""
    artifact_type: str
    digest: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class Pushed:
    """A version in a registry."""

    dataset: str
    digest: str
    """Of the version."""
    reference: str
    """`oci://registry/repository:tag`."""
    manifest: str
    """The digest of its manifest there: `oci://registry/repository@sha256:…` names it for ever."""
    files: int
    bytes: int
    layers: int
    layers_pushed: int
    """Layers that the registry lacked; with `is_dry_run`, lacks."""
    bytes_pushed: int
    referrers: tuple[PushedReferrer, ...] = ()
    is_dry_run: bool = False


@dataclass(frozen=True)
class _Push:
    """What one push works with."""

    client: RegistryClient
    retrier: Retrier
    stop: Stop
    progress: Progress
    folder: Path
    """Of the version."""


def push(  # noqa: PLR0913 - the command's options
    workspace: Workspace,
    address: Address,
    target: str,
    *,
    by: By | None = None,
    options: Mapping[str, Any] | None = None,
    decisions: bool = True,
    dry_run: bool = False,
    progress: Progress | None = None,
    cancel: Event | None = None,
) -> Pushed:
    """Push a version to a registry under a tag, which moves when it is there.

    Args:
        workspace: Cache and catalog.
        address: The version. It is fetched where this node lacks it; files that are damaged here end the push.
        target: `oci://registry/repository:tag`.
        by: `file`: a layer for each file; `shard`: tar layers of small files. By default, `file` up to 1,000 files.
        options: As of an `oci://` source: `username`, `password`, `token`, `plain_http`, `verify`.
        decisions: Whether the newest decision of each gate about the version, and its attestation, go along.
        dry_run: Whether to ask only what the registry lacks, and to send nothing.
        progress: Called from several threads.
        cancel: Stops in time.

    Raises:
        UsageError: The target is no tag of a registry, or the version has too many files for one manifest.
        MissingExtra: oras is not installed.
        AccessDenied: The registry refuses the login.
        SourceError: The registry refuses something else, or does not answer.
        CacheError: A file of the version is damaged on this node.
        CorruptRecord: This release can't read a decision about the version.
    """
    reference = OciReference.parse(target)
    if not reference.tag or reference.digest or reference.path:
        raise UsageError(f"{target} is no tag of a registry", hint="Write oci://registry/repository:tag.")
    remember_access(target, options or {})
    dataset, digest = address.dataset, workspace.catalog.resolve(address)
    manifest = read_manifest(workspace.catalog, dataset, digest)
    settings = workspace.settings
    terms = Terms(settings.of(Limits).idle, settings.allowed_hosts)
    stop = Stop(cancel)
    client = RegistryClient(reference, options or {}, terms, url=target, typed=True, check=stop.check)
    retrier = Retrier(RETRIES, stop, TransferStats())
    by_shard = by == "shard" or (by is None and manifest.files > MOST_LAYERS)
    layers = [*layers_of(manifest.entries(), by_shard=by_shard)]
    statements = recorded_decisions(workspace, dataset, digest) if decisions else {}
    # Before anything is sent: a decision that can't be read must not leave a tag that has moved.
    referrers = [*referrers_of(workspace, dataset, statements)]
    contents = partial(_contents, workspace, manifest, layers, decision_annotations(statements))
    with step(workspace, "push", dataset) as job:
        # Before anything is fetched or read: the manifest's length is the same, whatever the digests are.
        _require_size(contents([UNKNOWN] * len(layers)), manifest)
        current = retrier.run(lambda: client.has("manifests", reference.tag))  # a refused login is told now
        with present(workspace, dataset, digest, "push", cancel) as folder:
            run = _Push(client, retrier, stop, progress or Progress(), folder)
            run.progress.listed(len(layers), sum(files.size for files in layers))
            memory = workspace.cache.memory
            digests = _in_parallel(run, lambda files: layer_digest(memory, folder, files, stop.check), layers)
            built = contents(digests)
            pushed = _pushed_layers(run, layers, built, is_there=current == built.artifact.digest, dry_run=dry_run)
        job.note(digest=digest, files=manifest.files, bytes=manifest.bytes, bytes_pushed=sum(pushed))
        pushed_referrers: tuple[PushedReferrer, ...] = ()
        if not dry_run:
            for small_digest, content in ((built.rows_layer.digest, built.rows), (built.config_digest, built.config)):
                retrier.run(partial(client.push_missing, small_digest, content))
            retrier.run(lambda: client.push_manifest(reference.tag, built.manifest))
            pushed_referrers = tuple(_push_referrers(run, built.artifact, referrers))
    size = (len(layers), len(pushed), sum(pushed))
    return Pushed(
        dataset, digest, target, built.artifact.digest, manifest.files, manifest.bytes, *size, pushed_referrers, dry_run
    )


# ── the artifact ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Contents:
    """An artifact, but for the bytes of its layers."""

    layers: list[Descriptor]
    rows: bytes
    rows_layer: Descriptor
    config: bytes
    manifest: bytes

    @property
    def artifact(self) -> Descriptor:
        """The manifest's descriptor."""
        return Descriptor.of(self.manifest, MANIFEST)

    @property
    def config_digest(self) -> str:
        """The configuration's digest."""
        return Descriptor.of(self.config, CONFIG).digest


def _contents(
    workspace: Workspace,
    manifest: Manifest,
    layers: Sequence[LayerFiles],
    annotations: Mapping[str, str],
    digests: Sequence[str],
) -> _Contents:
    numbers, width = count(1), len(str(len(layers)))
    described = []
    for files, digest in zip(layers, digests, strict=True):
        if files.is_shard:
            name = f"stagegate.files-{next(numbers):0{width}}.tar"
            notes = {FILEPATH: name, TITLE: name, FILES: str(len(files.entries))}
            described.append(Descriptor(TAR, digest, files.size, notes))
        else:
            name = files.entries[0].path
            described.append(Descriptor(RAW, digest, files.size, {FILEPATH: name, TITLE: name}))
    rows = b"".join(map(row, manifest.entries()))
    rows_layer = _rows_layer(manifest, len(rows))
    config = _config(workspace, manifest, [*described, rows_layer])
    facts = {DATASET: manifest.dataset, VERSION: manifest.digest, **annotations}
    body = artifact_manifest(Descriptor.of(config, CONFIG), [*described, rows_layer], facts)
    return _Contents(described, rows, rows_layer, config, body)


def _rows_layer(manifest: Manifest, size: int) -> Descriptor:
    """The layer with the manifest's rows, whose digest is the version's."""
    name = "stagegate.rows"
    while any(entry.path == name or entry.path.startswith(f"{name}/") for entry in manifest.entries()):
        name += "_"
    return Descriptor(DOCUMENT, manifest.digest, size, {FILEPATH: name, TITLE: name})


def _config(workspace: Workspace, manifest: Manifest, layers: Sequence[Descriptor]) -> bytes:
    license_ = spec_beside(workspace.catalog, manifest.dataset, manifest.digest).license
    return canonical(
        {
            "descriptor": {
                "name": manifest.dataset,
                "version": manifest.digest,
                **({"licenses": [license_]} if license_ else {}),
            },
            "config": {},
            "modelfs": {"type": "layers", "diffIds": [layer.digest for layer in layers]},
        }
    )


def _require_size(contents: _Contents, manifest: Manifest) -> None:
    if len(contents.rows) > LARGEST_ROWS:
        size = bytes_text(len(contents.rows))
        problem = f"The version's rows have {size}, and `oci://` reads {bytes_text(LARGEST_ROWS)}"
        raise UsageError(problem, hint="Stage the files as several datasets.", dataset=manifest.dataset)
    if len(contents.manifest) > LARGEST_MANIFEST:
        files, size = count_text(manifest.files, "file"), bytes_text(len(contents.manifest))
        problem = f"A manifest for {files} takes {size}, and registries take {bytes_text(LARGEST_MANIFEST)}"
        raise UsageError(problem, hint="Push it with --by shard.", dataset=manifest.dataset)


# ── sending ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _pushed_layers(
    run: _Push, layers: Sequence[LayerFiles], built: _Contents, *, is_there: bool, dry_run: bool
) -> list[int]:
    """Send the layers that the registry lacks, and return their sizes."""
    # A registry takes a manifest only with all of its layers, so one that has the manifest has them.
    if is_there:
        for layer in built.layers:
            _count(run, layer, sent=0)
        return []
    distinct = {layer.digest: (files, layer) for files, layer in zip(layers, built.layers, strict=True)}

    def send(contents: tuple[LayerFiles, Descriptor]) -> int | None:
        files, layer = contents
        run.stop.check()
        run.progress.started(layer.name)
        silences = Budget(1)

        def send_if_missing() -> bool:
            # Asked for each try: the registry may have a layer although its answer was lost.
            is_missing = not run.client.has("blobs", layer.digest)
            if is_missing and not dry_run:
                _send(run, files, layer, silences)
            return is_missing

        is_missing = run.retrier.run(send_if_missing)
        _count(run, layer, sent=layer.size if is_missing else 0)
        return layer.size if is_missing else None

    return [size for size in _in_parallel(run, send, distinct.values()) if size is not None]


def _send(run: _Push, files: LayerFiles, layer: Descriptor, silences: Budget) -> None:
    moved_at = time.monotonic()

    def moved(size: int) -> None:
        nonlocal moved_at
        moved_at = time.monotonic()
        run.stop.check()
        run.progress.moved(size)

    try:
        run.client.push_blob(layer.digest, LayerBody(run.folder, files, moved))
    except SourceError as error:
        error.object = error.object or layer.name
        # The Retrier's tries are for failures that are told at once.
        if time.monotonic() - moved_at >= UPLOAD_IDLE and not silences.take():
            message = f"{error.message}: twice it took nothing of a layer, and answered nothing, for {UPLOAD_IDLE:g} s"
            hint = "Push again later: the layers that it has are not sent again."
            raise SourceError(message, hint=hint, source=error.source, object=error.object) from error
        raise


def _push_referrers(run: _Push, artifact: Descriptor, referrers: Iterable[Referrer]) -> Iterator[PushedReferrer]:
    for referrer in referrers:
        digest, is_new = run.retrier.run(partial(push_referrer, run.client, artifact, referrer))
        yield PushedReferrer(referrer.target, referrer.kind, referrer.artifact_type, digest, is_new)


def _count(run: _Push, layer: Descriptor, *, sent: int) -> None:
    pin = Pin("sha256", layer.digest, "strong")
    listed = SourceObject(layer.name, layer.size, pin)
    run.progress.done(Receipt(layer.name, listed, 0, layer.digest, "computed", sent))


def _in_parallel(run: _Push, function: Callable[[T], Result], items: Iterable[T]) -> list[Result]:
    """Call a function for each layer, several at a time. An error or an interrupt stops the calls under way."""
    with ThreadPoolExecutor(UPLOADS, "stagegate-push") as pool:
        try:
            calls = [pool.submit(function, item) for item in items]
            # As they end, so that an error need not wait for the layers before it.
            for call in as_completed(calls):
                call.result()
        except BaseException:
            run.stop.end()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [call.result() for call in calls]
