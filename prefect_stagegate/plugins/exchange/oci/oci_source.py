"""Artifacts of OCI registries: the files of one artifact, a folder of them, or one file.

A listing asks for the manifest of the tag, and names its digest as the state of what it lists. So listed files stay
readable while others push to the tag. A layer is read by its digest; a file in a tar layer of ours by a range of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

from prefect_stagegate.errors import ObjectVanished, SourceError, SourceUnavailable, StagegateError
from prefect_stagegate.model import CredentialLife, Entry, Pin, SourceObject
from prefect_stagegate.plugins.exchange.oci.artifact import (
    FILES,
    LARGEST_ROWS,
    RAW,
    Artifact,
    Descriptor,
    read_artifact,
    require_names,
)
from prefect_stagegate.plugins.exchange.oci.oci_reference import OciReference
from prefect_stagegate.plugins.exchange.oci.registry_client import RegistryClient
from prefect_stagegate.plugins.exchange.oci.shards import offsets
from prefect_stagegate.plugins.exchange.oci.tar_walk import tar_members
from prefect_stagegate.sources.adapter import Wanted, everything
from prefect_stagegate.sources.http_source import HttpReads
from prefect_stagegate.sources.terms import Terms
from prefect_stagegate.transport.http import RangeIgnored, Request, Response

LONGEST_NUMBER = 18
"""Digits of a size or count: no object is larger, and 64 bits hold it."""
JUST_NOW = 1.0
"""Seconds for which a renewed token is not renewed again."""
_EXPIRED = 401


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a file's bytes are."""

    size: int
    pin: Pin
    blob: str
    blob_size: int
    offset: int = 0
    refusal: str = ""
    """Why it can't be read; empty for nearly all."""


class OciSource(HttpReads):
    """An artifact of a registry, a folder of it (with or without the slash at its end) or one file.

    Args:
        url: `oci://registry/repository:tag`, or with `@sha256:…`, and a path behind it.
        options: `username`, `password` or `token`, `plain_http`, `verify`; by default the user's stored login counts.
        terms: Its idle time, permitted hosts and bound on entries apply.

    Raises:
        MissingExtra: oras is not installed.
        UsageError: The URL names no artifact, or an option can't be used.
    """

    def __init__(self, url: str, options: Mapping[str, Any], terms: Terms) -> None:
        super().__init__()
        self.url = url
        self._reference = reference = OciReference.parse(url)
        # Without the tag: pins are digests of the content, so those of one tag hold for all.
        self.identity = f"oci://{reference.registry}/{reference.repository}/{reference.path}"
        self._client = RegistryClient(reference, options, terms, url=url)
        self._most = terms.most
        self._renewing, self._renewed = threading.Lock(), -JUST_NOW
        self._states: dict[str, dict[str, _Place]] = {}
        """The files of each manifest that was read, by the manifest's digest."""

    def credential_life(self) -> CredentialLife:
        """What the login says."""
        return self._client.credential_life()

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted file of the artifact that the tag names now."""
        state, places = self._current()
        single, folder = self._chosen(places)
        if single:
            places, folder = {single: places[single]}, single[: single.rfind("/") + 1]
        is_empty = True
        for path, place in places.items():
            if path.startswith(folder):
                is_empty = False
                key = path.removeprefix(folder)
                if wanted(key):
                    self._require_readable(key, place)
                    yield _object(key, place, state)
        if is_empty:
            raise SourceError("There is nothing at this path of the artifact", hint="Check it.", source=self.url)

    def find(self, key: str) -> SourceObject:
        """The file in the artifact that the tag names now."""
        state, places = self._current()
        place = places.get(self._path(key, places))
        if place is None:
            raise ObjectVanished("The artifact no longer has the file", source=self.url, object=key)
        return _object(key, place, state)

    def request(self, listed: SourceObject, start: int, end: int) -> Request | None:
        """One GET of the layer, or of a range of it; None until the manifest is known, and for empty files."""
        places = self._states.get(listed.state)
        if places is None or not listed.size:
            return None
        place = self._place(listed, places)
        part = (place.offset + start, place.offset + end)
        return self._client.blob_request(place.blob, place.blob_size, None if part == (0, place.blob_size) else part)

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        """The same, after the manifest is known. What is listed under a digest can't change."""
        state = listed.state or self._current()[0]
        places = self._states.get(state) or self._read(state)
        self._place(listed, places)
        if len(buffer):
            super().read_into(replace(listed, state=state), start, buffer)

    def explain(self, listed: SourceObject, outcome: Response | Exception) -> StagegateError:
        """The error for a failed read. A token that has expired is renewed, and the read may be tried again."""
        if isinstance(outcome, Response) and outcome.status == _EXPIRED:
            with self._renewing:
                # Of the reads that a token's end fails together, one renews it for all.
                if time.monotonic() - self._renewed > JUST_NOW:
                    self._log_in_for(listed)
                    self._renewed = time.monotonic()
            return SourceUnavailable("The registry's token has expired", source=self.url, object=listed.key)
        return super().explain(listed, outcome)

    def _log_in_for(self, listed: SourceObject) -> None:
        """Log in, and read a file's first byte: a registry may refuse also a token that it has just given."""
        request = self.request(listed, 0, 1)
        # One that ignores ranges has let the login pass.
        with suppress(RangeIgnored):
            if request:
                self._client.fetch_logged_in(request)

    def refusal(self, response: Response, key: str) -> SourceError:
        """The error for a response of 300 or above."""
        return self._client.refusal(response, key)

    # ── the artifact ────────────────────────────────────────────────────────────────────────────────────────────

    def _current(self) -> tuple[str, dict[str, _Place]]:
        """The digest of the manifest that the reference names now, and the artifact's files by path."""
        try:
            body, digest = self._client.manifest(self._reference.name)
        except ObjectVanished as error:
            hint = "Check repository and tag; `oras repo tags` lists the tags."
            raise SourceError("The registry has no such artifact", hint=hint, source=self.url) from error
        if digest not in self._states:
            self._states[digest] = self._places(read_artifact(body, digest, self.url))
        return digest, self._states[digest]

    def _read(self, state: str) -> dict[str, _Place]:
        """The files of the manifest with a digest."""
        self._states[state] = self._places(read_artifact(self._client.manifest(state)[0], state, self.url))
        return self._states[state]

    def _places(self, artifact: Artifact) -> dict[str, _Place]:
        rows = artifact.rows
        if rows is None:
            places = self._foreign_places(artifact)
        elif rows.size > LARGEST_ROWS:
            raise SourceError(f"The version's rows are larger than {LARGEST_ROWS >> 20} MiB", source=self.url)
        else:
            lines = self._client.blob(rows.digest, rows.size)
            self._require_few(lines.count(b"\n"))
            entries = self._entries(lines)
            places = dict(self._version_places(artifact, entries))
            # A layer that is there twice stands for a file that is not there.
            if len(places) != len(entries):
                raise self._contradiction("")
        return places

    def _foreign_places(self, artifact: Artifact) -> dict[str, _Place]:
        """The places of the files of another tool's artifact: a layer each, or in tar layers, by their headers."""
        require_names(artifact, self.url)
        places: dict[str, _Place] = {}
        for layer in artifact.layers:
            for path, place in self._layer_places(layer):
                if path in places:
                    raise SourceError(f"The artifact names {path!r} twice", source=self.url, object=path)
                places[path] = place
                self._require_few(len(places))
        return places

    def _layer_places(self, layer: Descriptor) -> Iterator[tuple[str, _Place]]:
        digest = layer.digest.removeprefix("sha256:")
        if not layer.is_tar:
            refusal = "The layer is a compressed archive, which can't be read in part" if layer.is_compressed else ""
            yield layer.name, _Place(layer.size, Pin("sha256", digest, "strong"), layer.digest, layer.size, 0, refusal)
            return
        read = partial(self._client.blob_part, layer.digest, layer.size)
        for member in tar_members(read, layer.size, self._most, self.url):
            # No checksum of the file is known, but the layer's digest and the place in it name its bytes.
            pin = Pin("layer", f"{digest}:{member.offset}", "strong")
            yield (
                member.path,
                _Place(member.size, pin, layer.digest, layer.size, member.offset, member.refusal),
            )

    def _require_few(self, count: int) -> None:
        if count > self._most:
            hint = "Set STAGEGATE_MAX_ENTRIES higher if it is that large."
            raise SourceError(f"The artifact has more files than {self._most:,}", hint=hint, source=self.url)

    def _entries(self, rows: bytes) -> dict[str, Entry]:
        """The rows of a version's manifest, by path."""
        entries: dict[str, Entry] = {}
        try:
            for line in rows.decode().removesuffix("\n").split("\n"):
                path, size, digest = line.split("\0")
                entries[path] = Entry(path, _number(size), digest)
        except ValueError as error:
            raise SourceError("The artifact's rows are none of a version", source=self.url) from error
        return entries

    def _version_places(self, artifact: Artifact, entries: Mapping[str, Entry]) -> Iterator[tuple[str, _Place]]:
        """The places of a version's files: in layers of their own, and in tar layers, in the order of the rows."""
        rows = artifact.rows
        layers = [layer for layer in artifact.layers if layer is not rows]
        alone = {layer.name: layer for layer in layers if layer.media_type == RAW}
        together = (entry for path, entry in entries.items() if path not in alone)
        count = 0
        for layer in layers:
            if layer.media_type == RAW:
                members, starts = [entry for entry in [entries.get(layer.name)] if entry], [0]
                size = sum(entry.size for entry in members)
            else:
                members = list(islice(together, _number(layer.annotations.get(FILES, ""))))
                *starts, size = offsets(members)
            if not members or size != layer.size:
                raise self._contradiction(layer.name)
            for entry, start in zip(members, starts, strict=True):
                count += 1
                pin = Pin("blake3", entry.digest.removeprefix("blake3:"), "strong")
                yield entry.path, _Place(entry.size, pin, layer.digest, layer.size, start)
        if count != len(entries):
            raise self._contradiction("")

    def _contradiction(self, name: str) -> SourceError:
        message = "The artifact's layers don't fit the version that it names"
        return SourceError(message, hint="Push the version again.", source=self.url, object=name)

    # ── paths ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _chosen(self, places: Mapping[str, _Place]) -> tuple[str, str]:
        """The single file that the URL names, else empty, and the folder."""
        path = self._reference.path
        single = path if path in places else ""
        folder = path[: path.rfind("/") + 1] if single or not path else path.rstrip("/") + "/"
        return single, folder

    def _path(self, key: str, places: Mapping[str, _Place]) -> str:
        return self._chosen(places)[1] + key

    def _place(self, listed: SourceObject, places: Mapping[str, _Place]) -> _Place:
        """Where the listed bytes are.

        Raises:
            ObjectVanished: The artifact in which the file was listed has no such file.
        """
        place = places.get(self._path(listed.key, places))
        if place is None or (place.size, place.pin) != (listed.size, listed.pin):
            raise ObjectVanished("The artifact doesn't have the file", source=self.url, object=listed.key)
        self._require_readable(listed.key, place)
        return place

    def _require_readable(self, key: str, place: _Place) -> None:
        if place.refusal:
            hint = "Exclude it, or unpack it and push its files."
            raise SourceError(place.refusal, hint=hint, source=self.url, object=key)


def _number(text: str) -> int:
    """The number in a text from outside; 0 where it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER else 0


def _object(key: str, place: _Place, state: str) -> SourceObject:
    checksums = () if place.pin.kind == "layer" else ((place.pin.kind, place.pin.value),)
    return SourceObject(key, place.size, place.pin, None, checksums, state=state)
