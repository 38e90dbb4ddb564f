"""Reading a version while it arrives: each file as soon as it is here and proved.

    a visible version is complete; a file of an arriving version is proved before it can be opened

One process of the node fetches the version; readers in any number of processes ask it for files (`cache/arrivals.py`).
When it dies, the next reader that waits starts another.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from shutil import disk_usage
from subprocess import PIPE
from threading import Thread
from typing import IO, Any, Literal, cast

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.arrivals import MOST_FAILED, Arrival
from prefect_stagegate.cache.leases import Lease, LeaseKind
from prefect_stagegate.catalog import Catalog, withdrawal_of
from prefect_stagegate.catalog.version_records import read_manifest, read_pins
from prefect_stagegate.errors import NoSpace, NotReady, UsageError
from prefect_stagegate.jobs.gating.proofs import SignatureProof
from prefect_stagegate.jobs.read import VersionInUse, open_cache, override_of, used
from prefect_stagegate.jobs.staging.fetch_order import withdrawal_error
from prefect_stagegate.model import Address, Entry, Version
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.sources.selection.globs import selected
from prefect_stagegate.transport.transfer.processes import start_python
from prefect_stagegate.units import bytes_text
from prefect_stagegate.workspace import Workspace

FIRST_POLL, POLL = 0.002, 0.1
"""Seconds between two looks for a file, at first and at most."""
STARTS = 3
"""Processes that one wait starts, at most: each ended without a word."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A version that another process was asked to fetch."""

    dataset: str
    digest: str
    files: int
    bytes: int
    state: Literal["arriving", "complete"]


class ArrivingDataset(VersionInUse):
    """A version whose files can be read as they arrive. `open_dataset(…, wait=False)` gives one.

    It can be pickled, and used by threads and by processes that begin by fork or spawn: all share one fetching.

    Args:
        cache: The node's cache folder.
        catalog: Where the catalog lies.
        options: The catalog's storage options.
        dataset: The version's dataset.
        digest: The version.
        ref: By which it was opened; empty for none.
        entries: Its files.
        bound: Seconds that one wait lasts, at most.
    """

    def __init__(
        self,
        cache: Path,
        catalog: str,
        options: Mapping[str, Any],
        dataset: str,
        digest: str,
        ref: str,
        entries: Iterable[Entry],
        bound: float,
    ) -> None:
        self.dataset, self.digest, self.ref = dataset, digest, ref
        self.ends: dict[object, Callable[[], None]] = {}
        self._root, self._catalog, self._bound = cache, catalog, bound
        self._options: Mapping[str, Any] | None = options
        self._entries = {entry.path: entry for entry in entries}
        self._view: Path | None = None

    def __getstate__(self) -> dict[str, object]:
        # Another process opens the cache itself.
        state = {name: value for name, value in self.__dict__.items() if name not in ("_cache", "_tree")}
        # A pickle may end in a file, where no secret may lie; that of a process that is spawned does not.
        if self._options and get_spawning_popen() is None:
            state["_options"] = None
        return state | {"ends": {}}  # only the process that began a use ends it

    @cached_property
    def _cache(self) -> Cache:
        return open_cache(self._root)

    @property
    def _arrival(self) -> Arrival:
        return Arrival(self._cache.layout, self.digest)

    def open_catalog(self) -> Catalog:
        """The catalog that the version is of.

        Raises:
            CatalogError: It can't be read.
        """
        proof = SignatureProof.by(Settings.from_environment(os.environ))
        return Catalog.open(self._catalog, self._options, create=False, proof=proof)

    def files(self) -> list[str]:
        """The paths of all files, in order, here or not."""
        return list(self._entries)

    def glob(self, pattern: str) -> list[str]:
        """The paths that match a pattern, as `include` of a spec does: `*.parquet` matches in every folder.

        Raises:
            UsageError: The pattern is not well formed.
        """
        return [path for path in self._entries if selected(path, [pattern])]

    def size(self, path: str) -> int:
        """The bytes of a file, here or not."""
        return self._entry(path).size

    def children(self, folder: str) -> dict[str, int | None]:
        """The names in a folder, each with the bytes of a file, or None for a folder.

        Raises:
            FileNotFoundError: The version has no such folder.
        """
        try:
            return self._tree[folder]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, f"{self._name} has no such folder", folder) from None

    @cached_property
    def _tree(self) -> dict[str, dict[str, int | None]]:
        tree: dict[str, dict[str, int | None]] = {"": {}}
        for entry in self._entries.values():
            above, _, name = entry.path.rpartition("/")
            size: int | None = entry.size
            while name and name not in tree.setdefault(above, {}):
                tree[above][name] = size
                (above, _, name), size = above.rpartition("/"), None
        return tree

    def is_here(self, path: str) -> bool:
        """Whether a file is here, proved."""
        return self._find(self._entry(path)) is not None

    def prefetch(self, paths: Sequence[str]) -> None:
        """Have these files fetched before others, in this order. Returns at once.

        Raises:
            UsageError: The version has no such file.
            CacheError: The cache can't be written.
        """
        if missing := [path for path in paths if self._find(self._entry(path)) is None]:
            self.start()
            self._arrival.want(missing, first=False)

    def path(self, path: str) -> Path:
        """Where a file lies, read-only, once it is here and proved; until then it is waited for, and fetched first.

        Until the version is complete that is a blob, whose name has no suffix.

        Raises:
            UsageError: The version has no such file.
            NotReady: It did not come within STAGEGATE_ARRIVAL_TIMEOUT, or nobody can fetch it.
            GateFailed: The version was withdrawn meanwhile.
            SourceError, CacheError, …: What kept the file from being fetched; the error names it.
        """
        entry = self._entry(path)
        if here := self._find(entry):
            return here
        self.start()  # also after a job that failed: the source may be back
        self._arrival.want([path], first=True)
        return self._wait(entry)

    def open(self, path: str) -> IO[bytes]:
        """Open a file for reading bytes, as `path` waits for it."""
        return self.path(path).open("rb")

    def held(self) -> AbstractContextManager[Lease]:
        """Keep what came on this node during the block.

        Raises:
            CacheError: The cache can't be written.
        """
        return self._cache.leases.hold(LeaseKind.READER, self.dataset, self.digest, "open_dataset, early")

    def begin(self) -> Begun:
        """Start as `start` does, and tell what comes."""
        is_here = not self.start() and self._cache.views.path(self.dataset, self.digest) is not None
        size = sum(entry.size for entry in self._entries.values())
        return Begun(self.dataset, self.digest, len(self._entries), size, "complete" if is_here else "arriving")

    def start(self) -> bool:
        """Start to fetch the version in another process, unless it is here or one does. Returns whether it was started.

        Raises:
            CacheError: The cache can't be written.
            NotReady: The process can't be started.
        """
        if self._cache.views.path(self.dataset, self.digest):
            return False
        try:
            return self._arrival.start(self._run)
        except OSError as error:
            raise NotReady(
                f"The process that fetches {self._name} can't be started: {error.strerror or error}",
                hint=f"Fetch it first: stagegate stage {self._name}",
                dataset=self.dataset,
            ) from error

    @property
    def _name(self) -> str:
        return f"{self.dataset}@{self.ref or self.digest}"

    def _entry(self, path: str) -> Entry:
        try:
            return self._entries[path]
        except KeyError:
            raise UsageError(
                f"{self.dataset}@{self.digest} has no file {path!r}",
                hint="`files()` lists them.",
                dataset=self.dataset,
                object=path,
            ) from None

    def _find(self, entry: Entry) -> Path | None:
        # Each file of a later epoch comes by here, so a view that was seen is looked for by its path alone.
        if self._view is None or not self._view.is_dir():
            self._view = self._cache.views.path(self.dataset, self.digest)
        if self._view:
            return self._view / entry.path
        if self._cache.blobs.holds(entry.digest, entry.size):
            return Path(self._cache.layout.blob_path(entry.digest))
        return None

    def _wait(self, entry: Entry) -> Path:
        """Wait for a file; start a process that fetches it where none does."""
        deadline, pause, starts = time.monotonic() + self._bound, FIRST_POLL, 0
        while True:
            is_fetched = self._arrival.is_fetched()  # before the look: what ends in between has brought it, or said why
            if here := self._find(entry):
                return here
            if failure := self._arrival.failure(entry.path):
                failure.object = entry.path
                raise failure
            if not is_fetched:
                if starts == STARTS:
                    self._require_room(entry)
                    ended = f"the process that fetches it ended {STARTS} times"
                    raise self._late(entry, ": ".join(filter(None, (ended, self._arrival.last_line()))))
                starts += self.start()
            if time.monotonic() >= deadline:
                raise self._late(entry, f"it did not arrive within {self._bound:g} s")
            time.sleep(pause)
            pause = min(POLL, 2 * pause)

    def _require_room(self, entry: Entry) -> None:
        """Raise where the volume is full: then a process can't even write down why it ends."""
        free, needed = disk_usage(self._root).free, max(entry.size, MOST_FAILED)
        if free < needed:
            raise NoSpace(
                f"No space left for {entry.path} of {self._name}: {bytes_text(free)} free",
                hint=f"`stagegate gc` frees what nobody uses of {self._root}.",
                dataset=self.dataset,
                object=entry.path,
            )

    def _late(self, entry: Entry, why: str) -> NotReady:
        return NotReady(
            f"{entry.path} of {self._name} is not here: {why}",
            hint=f"`stagegate progress {self.dataset}` shows what is fetched; STAGEGATE_ARRIVAL_TIMEOUT is the bound.",
            dataset=self.dataset,
            object=entry.path,
        )

    def _run(self, lock: int) -> None:
        """Start the command that fetches the version. It holds `lock`, and outlives this process."""
        if self._options is None:
            raise NotReady(
                f"Nobody fetches {self._name}, and this process lacks the credentials of the catalog {self._catalog}",
                hint="A pickle does not hold them: call open_dataset(…, wait=False) in this process.",
                dataset=self.dataset,
            )
        with self._arrival.log() as output:
            process = start_python(
                *("-m", "prefect_stagegate", "stage", f"{self.dataset}@{self.digest}", "--options-at-stdin"),
                *("--no-progress", "--quiet", "--cache", str(self._root), "--catalog", self._catalog),
                pass_fds=[lock],
                stdin=PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a terminal's Ctrl-C is for the reader
            )
        with suppress(BrokenPipeError), cast("IO[bytes]", process.stdin) as stdin:  # it has ended
            # A line, since the other end stays open in a process that another thread forks now.
            stdin.write(f"{json.dumps({'follow': self.ref, 'catalog': dict(self._options)})}\n".encode())
        Thread(target=process.wait, name="stagegate-arriving", daemon=True).start()  # so that it leaves no zombie


def arriving(
    address: Address, cache: str | os.PathLike[str] | None = None, catalog: str | None = None
) -> ArrivingDataset:
    """Find a version that the catalog knows, for reading it early. Starts nothing, and holds nothing.

    Raises:
        UsageError: There is no such dataset, ref or version.
        GateFailed: The target withdrew the version.
        CatalogError: The catalog can't be read.
    """
    settings = Settings.from_environment(os.environ)
    opened = open_cache(cache, settings=settings, create=True)
    ref = address.named_ref
    if override := override_of(opened, address):
        run, digest = override
        known, options = run.catalog, run.catalog_options
        # This node's copy of the ref does not follow a run to a version that the ref does not name.
        follow = ref if known.resolve(address) == digest else ""
    else:
        known = Catalog.open(catalog or settings.catalog, create=False, proof=SignatureProof.by(settings))
        options, follow = dict[str, Any](), ref
        with opened.refs.suspending(address):
            digest = known.resolve(address)
    if entry := withdrawal_of(known, address.dataset, ref, digest):
        raise withdrawal_error(address, entry)
    entries, bound = read_manifest(known, address.dataset, digest).entries(), settings.arrival_timeout
    return ArrivingDataset(opened.root, known.url, options, address.dataset, digest, follow, entries, bound)


def begin_arriving(workspace: Workspace, dataset: str, digest: str, ref: str) -> Version:
    """Have another process fetch a version, and give the version as it will lie here. Holds nothing.

    Raises:
        CacheError: The cache can't be written.
        NotReady: The process can't be started.
    """
    manifest, timeout = read_manifest(workspace.catalog, dataset, digest), workspace.settings.arrival_timeout
    catalog = (workspace.catalog.url, workspace.catalog_options)
    ArrivingDataset(workspace.cache.root, *catalog, dataset, digest, ref, (), timeout).start()
    pins = read_pins(workspace.catalog, dataset, digest)
    view = workspace.cache.layout.view(dataset, digest)
    return Version(dataset, digest, view, manifest.files, manifest.bytes, pins=pins)


@contextmanager
def open_arriving(
    address: Address, cache: str | os.PathLike[str] | None = None, catalog: str | None = None
) -> Iterator[ArrivingDataset]:
    """As `arriving`, and start to fetch the version; keep what came on this node during the block.

    Raises:
        CacheError: The cache can't be written.
    """
    dataset = arriving(address, cache, catalog)
    with dataset.held():
        dataset.start()
        with used(dataset):
            yield dataset
