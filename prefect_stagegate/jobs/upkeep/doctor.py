"""Probing every source and mirror of a spec at once, with the credentials of this process. Writes nothing."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from prefect_stagegate.clock import now
from prefect_stagegate.errors import StagegateError
from prefect_stagegate.jobs.staging.open_sources import open_spec_source
from prefect_stagegate.jobs.staging.probe import SourceProbe, probe
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.sources import public_url
from prefect_stagegate.sources.selection.object_selection import Selection
from prefect_stagegate.spec import MirrorSpec, SourceSpec, Spec
from prefect_stagegate.workspace import ResolveCredentials

PATIENCE = 30.0
"""Seconds after which a source without an answer counts as not working."""


@dataclass(frozen=True, slots=True)
class Examination:
    """The result of probing one source or mirror."""

    url: str
    """Free of credentials."""
    mirror_of: str
    """The source that it is a mirror of; empty for a source."""
    works: bool
    who: str
    """The credentials that were used: the block that the spec names, and the kind that the client found."""
    pin: str = ""
    """Kind and strength of its pins: `etag, strong`; empty for a source that has no object and may have none."""
    object: str = ""
    """The key that was read."""
    list_seconds: float | None = None
    """From connecting until the first object that the spec takes was listed."""
    read_bytes: int = 0
    read_seconds: float | None = None
    problem: str = ""
    """What went wrong, in one line; empty when it works."""
    fix: str = ""
    """What to do about it."""


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """A source or mirror to probe."""

    spec: SourceSpec | MirrorSpec
    source: SourceSpec
    """The same, or for a mirror its source."""

    @property
    def mirror_of(self) -> str:
        return "" if self.spec is self.source else public_url(self.source.url)


def examine(
    spec: Spec, settings: Settings, resolve_credentials: ResolveCredentials, *, patience: float = PATIENCE
) -> list[Examination]:
    """Probe every source and mirror of a spec; the results come in its order.

    `patience` is in seconds, for all of them together.
    """
    endpoints = list(_endpoints(spec))
    results: queue.SimpleQueue[tuple[int, SourceProbe]] = queue.SimpleQueue()

    def run(number: int) -> None:
        results.put((number, _probe(endpoints[number], settings, resolve_credentials)))

    for number in range(len(endpoints)):
        # A daemon: a thread that hangs in a client library must not keep the command from ending.
        threading.Thread(target=run, args=(number,), daemon=True).start()
    probes = dict(_until(results, len(endpoints), patience))
    return [_examination(endpoint, probes.get(number), patience) for number, endpoint in enumerate(endpoints)]


def _endpoints(spec: Spec) -> Iterator[_Endpoint]:
    for source in spec.sources:
        yield _Endpoint(source, source)
        yield from (_Endpoint(mirror, source) for mirror in source.mirrors)


def _probe(endpoint: _Endpoint, settings: Settings, resolve_credentials: ResolveCredentials) -> SourceProbe:
    url = public_url(endpoint.spec.url)
    reopen = partial(open_spec_source, endpoint.spec, settings, resolve_credentials)
    try:
        return probe(url, reopen, Selection(endpoint.source, now()))
    except Exception as error:  # noqa: BLE001 - reported for this source, beside the others
        return SourceProbe(url, error=StagegateError(f"Unexpected error: {type(error).__name__}: {error}"))


def _until(
    results: queue.SimpleQueue[tuple[int, SourceProbe]], count: int, patience: float
) -> Iterator[tuple[int, SourceProbe]]:
    """The results that come within `patience` seconds."""
    deadline = time.monotonic() + patience
    for _ in range(count):
        try:
            yield results.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return


def _examination(endpoint: _Endpoint, probed: SourceProbe | None, patience: float) -> Examination:
    failed = Examination(public_url(endpoint.spec.url), endpoint.mirror_of, works=False, who=_who(endpoint, probed))
    if probed is None:
        fix = "Check whether the server is well, or give it more time with --timeout."
        return replace(failed, problem=f"It did not answer within {patience:.0f} s", fix=fix)
    if probed.error:
        fix = probed.error.hint.removeprefix(f"Tried with: {probed.who}. ")  # the row names them already
        return replace(failed, problem=_one_line(probed.error.message), fix=_one_line(fix))
    if probed.pin is None and endpoint.source.may_be_empty:
        return replace(failed, works=True, list_seconds=probed.listed)
    if probed.pin is None:
        fix = "Check the source's `url`, `include`, `exclude` and other filters, or let it be: `may_be_empty: true`."
        return replace(failed, problem="It has no object that the spec selects", fix=fix)
    return replace(
        failed,
        works=True,
        pin=f"{probed.pin.kind}, {probed.pin.strength}",
        object=probed.object,
        list_seconds=probed.listed,
        read_bytes=probed.read,
        read_seconds=probed.seconds - probed.listed,
    )


def _who(endpoint: _Endpoint, probed: SourceProbe | None) -> str:
    """The block and the profile that the spec names, and the kind of credentials that the client found."""
    profile = endpoint.spec.options.get("profile")
    parts = (endpoint.spec.credentials, f"the profile {profile}" if profile else None, probed.who if probed else None)
    return ", ".join(filter(None, parts)) or "credentials that were not found"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def failing(examinations: Sequence[Examination]) -> list[Examination]:
    """The examinations of sources and mirrors that do not work."""
    return [examination for examination in examinations if not examination.works]
