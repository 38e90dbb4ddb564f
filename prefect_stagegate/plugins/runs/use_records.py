"""The catalog's records of uses: which run opened a version, from when to when.

    datasets/<dataset>/runs.begun/<sha256>/<time>-<run>.json    written once, when a run opens the version
                       runs.ended/<sha256>/<time>-<run>.json    written when it closes it; again when it closes it later

`<run>` is a hash of tool and id, so a run has one record however often and by how many processes it opens the version.
A run that was killed has no end. A record proves no more than that somebody who may write to the catalog wrote it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.records import decode, remove_oldest
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.doors import Record
from prefect_stagegate.redaction import redact
from prefect_stagegate.show.legible import legible_text, one_line, shortened
from prefect_stagegate.sources import public_url
from prefect_stagegate.units import count_text
from prefect_stagegate.unreadable import UnreadableRecords, skipping

if TYPE_CHECKING:
    from prefect_stagegate.workspace import Workspace

T = TypeVar("T")
KEPT = 1000
"""Runs of one version that the catalog keeps; the oldest ones are removed."""
REMOVED = 100
"""Records of each kind that one use removes, at most."""
TEXT = 200
"""Characters of each text."""
MODELS = 20
"""Registered models of one run."""
RECORD_BYTES = 64 << 10
"""The most bytes of a record that are read."""
_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{16}")


def clean(text: object) -> str:
    r"""A text of a tracker or a user in one line: without secrets and characters that act, and cut.

    >>> clean("loss\x1b[2J\n went  up")
    'loss\\x1b[2J went up'
    """
    return shortened(legible_text(one_line(redact(str(text)[: 4 * TEXT]))), TEXT)


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A run of a tracker or an orchestrator. Texts are cleaned, also those that are read from a record."""

    tool: str
    """`mlflow`, `wandb`, `prefect`, or what the user called it; may be empty."""
    id: str
    name: str = ""
    place: str = ""
    """The URL of its tracker or of its page, without credentials."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", public_url(str(self.place)[: 4 * TEXT]))
        for field in fields(self):
            object.__setattr__(self, field.name, clean(getattr(self, field.name)))

    def __str__(self) -> str:
        """As `ds.log(run=…)` takes it: `mlflow:3f2a…`."""
        return f"{self.tool}:{self.id}" if self.tool else self.id


@dataclass(frozen=True, slots=True)
class UseBegun:
    """A run opened a version."""

    run: TrackedRun
    ref: str
    who: str
    node: str
    at: str

    def __post_init__(self) -> None:
        for name in ("ref", "who", "node", "at"):
            object.__setattr__(self, name, clean(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class UseEnded:
    """A run closed it."""

    at: str
    models: tuple[str, ...] = ()
    """The models that the run had registered by then, as `NAME/VERSION`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", clean(self.at))
        object.__setattr__(self, "models", tuple(map(clean, self.models[:MODELS])))


@dataclass(frozen=True, slots=True)
class VersionUse:
    """The use of a version by a run."""

    run: TrackedRun
    ref: str
    """By which it opened the version; empty for a digest."""
    who: str
    node: str
    begun: str
    ended: str
    """When the run closed the version; empty while it has it open, and for one that was killed."""
    models: tuple[str, ...]


BEGUN = Record("runs.begun", UseBegun)
ENDED = Record("runs.ended", UseEnded)


def record_begun(catalog: Catalog, dataset: str, digest: str, use: UseBegun) -> str:
    """Record that a run opened a version, unless the catalog knows it. Returns the name of the use for `record_ended`.

    Raises:
        CatalogError: The catalog can't be read or written.
    """
    names = use_names(catalog, BEGUN, dataset, digest)
    mark = _mark(use.run)
    if known := next((name for name in names if name.endswith(mark)), ""):
        return known
    name = f"{now():%Y%m%dT%H%M%SZ}-{mark}"
    catalog.create(BEGUN, use, dataset, digest, name)
    remove_oldest(catalog, (BEGUN, ENDED), dataset, digest, names=[*names, name], keep=KEPT, most=REMOVED)
    return name


def record_ended(catalog: Catalog, dataset: str, digest: str, name: str, models: Iterable[str]) -> None:
    """Record that a run closed a version.

    Raises:
        CatalogError: The catalog can't be written.
    """
    catalog.put(ENDED, UseEnded(stamp(now()), tuple(models)), dataset, digest, name)


def use_names(catalog: Catalog, kind: Record[Any], dataset: str, digest: str) -> list[str]:
    """The names of a version's records of uses, the oldest first."""
    return [name for name in catalog.names(kind, dataset, digest) if _NAME.fullmatch(name)]


def why_used(workspace: Workspace, dataset: str) -> Callable[[str], str]:
    """Why a version may not be removed from the catalog: runs used it; see `Plugin.keeps`."""

    def why(digest: str) -> str:
        runs = {name[-16:] for name in use_names(workspace.catalog, BEGUN, dataset, digest)}
        return f"{count_text(len(runs), 'run')} used it" if runs else ""

    return why


def has_use(catalog: Catalog, dataset: str, digest: str, run: TrackedRun) -> bool:
    """Whether a use of a version by a run is recorded."""
    mark = _mark(run)
    return any(name.endswith(mark) for name in use_names(catalog, BEGUN, dataset, digest))


def read_uses(
    catalog: Catalog, dataset: str, digest: str, newest: int, unreadable: UnreadableRecords | None = None
) -> tuple[list[VersionUse], int]:
    """The uses of a version, the newest first.

    Args:
        catalog: The catalog.
        dataset: The version's dataset.
        digest: The version.
        newest: How many are read, at most.
        unreadable: Collects damaged records; None: the first of them raises.

    Returns:
        The uses, and how many older ones there are.
    """
    # Processes of a run that began together may each have a record: the first counts.
    first: dict[str, str] = {}
    for name in use_names(catalog, BEGUN, dataset, digest):
        first.setdefault(name[-16:], name)
    names = sorted(first.values(), reverse=True)
    ended = set(use_names(catalog, ENDED, dataset, digest)) if names else set()
    uses: list[VersionUse] = []
    for name in names[:newest]:
        with skipping(unreadable, dataset):
            begun = _read(catalog, BEGUN, dataset, digest, name)
            end = _read(catalog, ENDED, dataset, digest, name) if name in ended else None
            if begun:
                until, models = (end.at, end.models) if end else ("", ())
                uses.append(VersionUse(begun.run, begun.ref, begun.who, begun.node, begun.at, until, models))
    return uses, max(0, len(names) - newest)


def _mark(run: TrackedRun) -> str:
    return hashlib.sha256(f"{run.tool}\0{run.id}".encode(errors="surrogateescape")).hexdigest()[:16]


def _read(catalog: Catalog, kind: Record[T], *key: str) -> T | None:
    # What is longer lacks its beginning, and is damaged.
    data = catalog.records.read_end(path := kind.path(*key), RECORD_BYTES)
    return None if data is None else decode(kind.content, data, path)
