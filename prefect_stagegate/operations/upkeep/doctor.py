"""Trying every source and mirror of a spec as the identity that runs this, all at once. Nothing is written anywhere."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from prefect_stagegate.clock import now
from prefect_stagegate.errors import StagegateError
from prefect_stagegate.operations.staging.probe import probe
from prefect_stagegate.operations.staging.sources import open_one
from prefect_stagegate.operations.workspace import ResolveCredentials
from prefect_stagegate.readiness import Probe
from prefect_stagegate.settings import Settings
from prefect_stagegate.sources import public_url, renewing
from prefect_stagegate.sources.selection.selection import Selection
from prefect_stagegate.spec import MirrorSpec, SourceSpec, Spec

PATIENCE = 30.0
"""Seconds after which a source that has not answered is told as one that does not."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What came of trying one source or mirror."""

    url: str
    """Free of credentials."""
    mirror_of: str
    """The source that it is a mirror of; empty for a source."""
    works: bool
    who: str
    """Whom the server took us for: the block that the spec names, and what kind of credentials were found."""
    pin: str = ""
    """What it can fix an object by, and how well: `etag, strong`."""
    object: str = ""
    """The key that was read."""
    list_seconds: float | None = None
    """Until the first object that the spec takes was listed, connecting included."""
    read_bytes: int = 0
    read_seconds: float | None = None
    problem: str = ""
    """What went wrong, in one line; empty when it works."""
    fix: str = ""
    """What to do about it."""


@dataclass(frozen=True, slots=True)
class _Patient:
    """A source or mirror that is to be tried."""

    place: SourceSpec | MirrorSpec
    source: SourceSpec
    """The place itself, or whose mirror it is."""

    @property
    def mirror_of(self) -> str:
        return "" if self.place is self.source else public_url(self.source.url)


def examine(
    spec: Spec, settings: Settings, resolve_credentials: ResolveCredentials, *, patience: float = PATIENCE
) -> list[Examination]:
    """Try every source and mirror of a spec, in its order.

    Args:
        spec: Whose sources.
        settings: How servers are asked.
        resolve_credentials: Finds the storage options behind a spec's `credentials:`.
        patience: Seconds for all of them together.
    """
    patients = list(_patients(spec))
    answers: queue.SimpleQueue[tuple[int, Probe]] = queue.SimpleQueue()

    def ask(number: int) -> None:
        answers.put((number, _ask(patients[number], settings, resolve_credentials)))

    for number in range(len(patients)):
        # A daemon, since one that hangs in a client library must not keep the command from ending.
        threading.Thread(target=ask, args=(number,), daemon=True).start()
    found = dict(_until(answers, len(patients), patience))
    return [_examination(patient, found.get(number), patience) for number, patient in enumerate(patients)]


def _patients(spec: Spec) -> Iterator[_Patient]:
    for source in spec.sources:
        yield _Patient(source, source)
        yield from (_Patient(mirror, source) for mirror in source.mirrors)


def _ask(patient: _Patient, settings: Settings, resolve_credentials: ResolveCredentials) -> Probe:
    url = public_url(patient.place.url)
    reopen = partial(renewing, partial(open_one, patient.place, settings, resolve_credentials))
    try:
        return probe(url, reopen, Selection(patient.source, now()))
    except Exception as error:  # noqa: BLE001 - told as this source's, beside the others
        return Probe(url, error=StagegateError(f"An error that nobody foresaw: {type(error).__name__}: {error}"))


def _until(answers: queue.SimpleQueue[tuple[int, Probe]], count: int, patience: float) -> Iterator[tuple[int, Probe]]:
    deadline = time.monotonic() + patience
    for _ in range(count):
        try:
            yield answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return


def _examination(patient: _Patient, found: Probe | None, patience: float) -> Examination:
    tried = Examination(public_url(patient.place.url), patient.mirror_of, works=False, who=_who(patient, found))
    if found is None:
        fix = "Ask whether the server is well, or give it longer by --timeout."
        return replace(tried, problem=f"It did not answer within {patience:.0f} s", fix=fix)
    if found.error:
        fix = found.error.hint.removeprefix(f"Who asked: {found.who}. ")  # it is said already
        return replace(tried, problem=_one_line(found.error.message), fix=_one_line(fix))
    if found.pin is None:
        fix = "Check the source's `url`, `include`, `exclude` and other filters in the spec."
        return replace(tried, problem="It has nothing that the spec takes", fix=fix)
    return replace(
        tried,
        works=True,
        pin=f"{found.pin.kind}, {found.pin.strength}",
        object=found.object,
        list_seconds=found.listed,
        read_bytes=found.read,
        read_seconds=found.seconds - found.listed,
    )


def _who(patient: _Patient, found: Probe | None) -> str:
    """The block and the profile that the spec names, and what kind of credentials the client found."""
    profile = patient.place.options.get("profile")
    named = (patient.place.credentials, f"the profile {profile}" if profile else None, found.who if found else None)
    return ", ".join(filter(None, named)) or "credentials that were not found"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def ill(found: Sequence[Examination]) -> list[Examination]:
    """Those that do not work."""
    return [one for one in found if not one.works]
