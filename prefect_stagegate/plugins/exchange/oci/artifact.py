"""An artifact's manifest, in ModelPack's form for datasets. Pure: no I/O.

    manifest  application/vnd.oci.image.manifest.v1+json, artifactType application/vnd.cncf.model.manifest.v1+json
      config    application/vnd.cncf.model.config.v1+json: name, version, license, and the layers' digests
      layers    application/vnd.cncf.model.dataset.v1.raw    one file
                application/vnd.cncf.model.dataset.v1.tar    many small files (see `shards`)
                application/vnd.cncf.model.doc.v1.raw        the rows of the version, as of `show --rows`
      annotations  io.stagegate.dataset, io.stagegate.version, io.stagegate.decision.TARGET

The digest of the layer with the rows is the version's digest. So the rows tell where each file of a tar layer lies,
and which BLAKE3 digest each file has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prefect_stagegate.errors import SourceError
from prefect_stagegate.model.canonical import canonical, sha256_of

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
CONFIG = "application/vnd.cncf.model.config.v1+json"
RAW = "application/vnd.cncf.model.dataset.v1.raw"
TAR = "application/vnd.cncf.model.dataset.v1.tar"
DOCUMENT = "application/vnd.cncf.model.doc.v1.raw"
FILEPATH = "org.cncf.model.filepath"
TITLE = "org.opencontainers.image.title"
"""The name of a layer's file for ORAS's clients."""
DATASET = "io.stagegate.dataset"
VERSION = "io.stagegate.version"
DECISION = "io.stagegate.decision."
"""The beginning of the annotations with the digest of a target's decision, `sha256:<hex>` of its Statement."""
FILES = "io.stagegate.files"
"""The number of files in a tar layer of ours."""
UNPACK = "io.deis.oras.content.unpack"
"""ORAS's mark of a folder that was packed."""
LARGEST_MANIFEST = 4 << 20
"""Bytes of a manifest: registries must take so many, and many take no more."""
LARGEST_ROWS = 256 << 20
"""Bytes of a version's rows: about two million files."""
LARGEST_SIZE = (1 << 63) - 1
"""Bytes of a layer or file: no larger number can be kept."""

SHOWN = 5
"""Artifacts of an index that an error names."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_OTHER_DIGEST = re.compile(r"(sha512|blake3):")
_TAR = re.compile(r"application/vnd\.cncf\.model\.[a-z0-9.]+\.tar")
_COMPRESSED = re.compile(_TAR.pattern + r"\+[a-z]+")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to content of a registry."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""

    @classmethod
    def of(
        cls, content: bytes, media_type: str, annotations: Mapping[str, str] | None = None, artifact_type: str = ""
    ) -> Descriptor:
        """The descriptor of content that is in memory."""
        return cls(media_type, sha256_of(content), len(content), annotations or {}, artifact_type)

    @property
    def name(self) -> str:
        """The path that it is stored under; empty where it has none."""
        return self.annotations.get(FILEPATH) or self.annotations.get(TITLE, "")

    @property
    def is_tar(self) -> bool:
        """Whether it is a tar archive of files."""
        # ORAS gives plain files a type of images' tar layers, so that one tells nothing.
        return bool(_TAR.fullmatch(self.media_type))

    @property
    def is_compressed(self) -> bool:
        """Whether it is a compressed archive of files, in which nothing can be found by ranges."""
        return bool(_COMPRESSED.fullmatch(self.media_type)) or self.annotations.get(UNPACK) == "true"

    def as_json(self) -> dict[str, Any]:
        """JSON values, as manifests have them."""
        return {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
            **({"artifactType": self.artifact_type} if self.artifact_type else {}),
            **({"annotations": dict(self.annotations)} if self.annotations else {}),
        }


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a manifest says."""

    digest: str
    """Of the manifest, `sha256:<hex>`."""
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]

    @property
    def rows(self) -> Descriptor | None:
        """The layer with the rows of the version's manifest; None for an artifact of others."""
        version = self.annotations.get(VERSION)
        return next((layer for layer in self.layers if layer.digest == version), None)


def artifact_manifest(config: Descriptor, layers: Iterable[Descriptor], annotations: Mapping[str, str]) -> bytes:
    """The manifest of a version: the same bytes each time."""
    return canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": ARTIFACT,
            "config": config.as_json(),
            "layers": [layer.as_json() for layer in layers],
            "annotations": dict(annotations),
        }
    )


def read_artifact(body: bytes, digest: str, source: str) -> Artifact:
    """Read a manifest.

    Raises:
        SourceError: It is none of one artifact.
    """
    try:
        manifest = json.loads(body)
        if "manifests" in manifest:
            digests = [_descriptor(item, source).digest for item in manifest["manifests"][:SHOWN]]
            names = " or ".join(f"@{digest}" for digest in digests) or "the index is empty"
            hint = f"Name one of them in place of the tag: {names}."
            raise SourceError("The registry has an index of several artifacts here", hint=hint, source=source)
        layers = tuple(_descriptor(layer, source) for layer in manifest["layers"])
        annotations = _texts(manifest.get("annotations") or {})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError("The registry's manifest is none of an OCI artifact", source=source) from error
    return Artifact(digest, layers, annotations)


def index_with(body: bytes | None, descriptor: Descriptor, source: str) -> bytes | None:
    """An index, or a new one, with one descriptor more; None where it has it. All that others wrote stays.

    Raises:
        SourceError: It is no index.
    """
    try:
        index: dict[str, Any] = json.loads(body) if body else {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
        if any(item["digest"] == descriptor.digest for item in index["manifests"]):
            return None
        return canonical({**index, "manifests": [*index["manifests"], descriptor.as_json()]})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SourceError("The registry's list of referrers is no OCI index", source=source) from error


def require_names(artifact: Artifact, source: str) -> None:
    """Refuse an artifact of another tool whose layers are no files.

    Raises:
        SourceError: A layer has no file's name.
    """
    for number, layer in enumerate(artifact.layers, 1):
        if not layer.name and not layer.is_tar:
            hint = f"Files are named by the annotation {FILEPATH} or {TITLE}: it may be a container's image."
            raise SourceError(f"Layer {number} of the artifact has no file's name", hint=hint, source=source)


def _descriptor(value: Any, source: str) -> Descriptor:
    digest, size = value["digest"], value["size"]
    if other := _OTHER_DIGEST.match(digest):
        raise SourceError(f"The artifact names content by {other[1]}; only sha256 is supported", source=source)
    is_size = isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= LARGEST_SIZE
    if not _DIGEST.fullmatch(digest) or not is_size:
        raise ValueError("no usable digest or size")
    annotations = _texts(value.get("annotations") or {})
    return Descriptor(str(value["mediaType"]), digest, size, annotations, str(value.get("artifactType", "")))


def _texts(value: Mapping[str, Any]) -> dict[str, str]:
    return {name: text for name, text in value.items() if isinstance(text, str)}
