"""Reading a version: where it lies, and holding it while it is read."""

from __future__ import annotations

import logging
import os
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.layout import ONLY_READABLE
from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.doors import declared, load, offered
from prefect_stagegate.errors import CacheError, CatalogError, UnknownDataset, UnknownRef, nearest, suggest
from prefect_stagegate.model import LATEST, Address
from prefect_stagegate.model.settings import Settings

if TYPE_CHECKING:
    from prefect_stagegate.catalog import Catalog
    from prefect_stagegate.jobs.arriving import ArrivingDataset
    from prefect_stagegate.workspace import Workspace

SIGNS_OF_RUNS = ("mlflow", "wandb", "prefect", "MLFLOW_RUN_ID", "WANDB_RUN_ID", "PREFECT__FLOW_RUN_ID")
"""Modules and variables without all of which a process has no run: then opening a version asks no plugin."""
log = logging.getLogger(__name__)


def open_cache(
    folder: str | os.PathLike[str] | None = None, *, settings: Settings | None = None, create: bool = False
) -> Cache:
    """Open a node's cache.

    Args:
        folder: The cache; by default STAGEGATE_CACHE.
        settings: By default, those of the environment.
        create: Whether to make a cache where there is none.

    Raises:
        UsageError: A setting is wrong, or several folders are named.
        CacheError: The cache can't be opened.
    """
    settings = settings or Settings.from_environment(os.environ)
    return Cache.open(Path(folder or settings.cache), create=create, durability=settings.durability)


class VersionInUse:
    """A version that is open, and the runs that use it."""

    __slots__ = ()
    dataset: str
    digest: str
    ref: str
    """By which it was opened; empty for a digest."""
    ends: dict[object, Callable[[], None]]
    """What ends its use by each run."""

    @abstractmethod
    def open_catalog(self) -> Catalog:
        """The catalog that the version is of.

        Raises:
            CatalogError: It can't be read.
        """

    @property
    def url(self) -> str:
        """The version for fsspec and trackers: `stagegate://flights@sha256-4f9c…`."""
        return f"stagegate://{self.dataset}@{self.digest.replace(':', '-')}"

    def log(self, run: str = "") -> tuple[str, ...]:
        """Log the version to the runs that are active in this process, and record its use by them in the catalog.

        Opening a version does so for the runs that are active by then. What fails is logged as a warning.

        Args:
            run: A run that no tracker of this process knows, as `TOOL:ID`: only the catalog records it.

        Returns:
            The runs that are known now, as `TOOL:ID`.

        Raises:
            UsageError: The plugin is not installed.
        """
        known: tuple[str, ...] = offered("uses", "log", "`log()`")(self, run)
        return known

    def tags(self) -> dict[str, str]:
        """What a run should know, for a tracker's tags: `stagegate.dataset`, `.ref`, `.digest`, `.decision`, `.policy`.

        The last two are those of the decision by which the ref's target accepted the version. They are left out where
        there is none, or where the catalog can't be read.

        Raises:
            UsageError: The plugin is not installed.
        """
        tags: dict[str, str] = offered("uses", "tags", "`tags()`")(self)
        return tags


@dataclass(frozen=True, slots=True)
class OpenDataset(VersionInUse):
    """A version that stays on this node for as long as it is open."""

    dataset: str
    digest: str
    path: Path
    """The folder that holds the version's files, read-only."""
    ref: str = ""
    catalog: Catalog | str = field(default="", compare=False, repr=False)
    """The catalog, or where it lies; empty for the settings'."""
    ends: dict[object, Callable[[], None]] = field(default_factory=dict, compare=False, repr=False)

    def open_catalog(self) -> Catalog:
        """The catalog that the version is of.

        Raises:
            CatalogError: It can't be read.
        """
        return _open_catalog(self.catalog) if isinstance(self.catalog, str) else self.catalog


@contextmanager
def used(version: VersionInUse) -> Iterator[None]:
    """Let plugins tell the runs of this process which version they use during the block. What they raise is logged."""
    try:
        if any(sign in sys.modules or sign in os.environ for sign in SIGNS_OF_RUNS):
            try:
                if place := declared("uses").get("begin"):
                    load(place)(version)
            except Exception as error:  # noqa: BLE001 - whatever a plugin raises: the version is read all the same
                log.warning("No run was told that it uses %s: %s", version.dataset, type(error).__name__)
        yield
    finally:
        for end in [*version.ends.values()]:
            end()


_overrides: list[tuple[Workspace, Address, str]] = []
"""The overrides in force: who made it, dataset and ref, digest; the newest last."""


@contextmanager
def override_ref(workspace: Workspace, address: Address, digest: str) -> Iterator[None]:
    """Resolve a ref to one version in this process during the block.

    A run that was given a version reads that version by the ref's name, even if the ref moves on meanwhile or names a
    version that the run was refused.
    """
    override = (workspace, address, digest)
    _overrides.append(override)
    try:
        yield
    finally:
        # By its value, since blocks of several threads may end in any order.
        _overrides.remove(override)


def locate(cache: Cache, address: Address) -> OpenDataset:
    """Find a version on this node: by `override_ref`, else by the node's copies of the refs.

    A node has no log of its refs, so the caller resolves an address that counts versions back with `counted` first.

    Raises:
        UnknownDataset: The node has nothing of the dataset, and the name resembles one that it has.
        UnknownRef: The node has no such ref, not that version, or several versions whose digests begin so.
        UnprovedEntry: The node's copy of the ref is suspended.
    """
    dataset, ref = address.dataset, address.ref or LATEST
    if address.abbreviation:
        hint = f"Fetch it with `stagegate stage {address}`."
        held = sorted(cache.views.of(dataset))
        digest: str | None = address.complete(held, f"The cache {cache.root}", hint)
        catalog: Catalog | str = ""
    else:
        override = override_of(cache, Address(dataset, ref))
        catalog = override[0].catalog if override else ""
        digest = address.digest or (override[1] if override else cache.refs.get(dataset, ref))
    if digest is None:
        raise _not_here(cache, dataset, ref)
    return OpenDataset(dataset, digest, _view(cache, address, digest), address.named_ref, catalog)


def _view(cache: Cache, address: Address, digest: str) -> Path:
    """The folder of a version, which must be complete here."""
    view = cache.views.path(address.dataset, digest)
    if view is None:
        raise UnknownRef(
            f"{address.dataset}@{digest} is not in the cache {cache.root}",
            hint=f"Fetch it with `stagegate stage {address}`.",
            dataset=address.dataset,
        )
    return view


def _not_here(cache: Cache, dataset: str, ref: str) -> UnknownRef | UnknownDataset:
    """The error for a ref that this node lacks: its name is mistyped, or nobody staged it here."""
    refs, datasets = cache.refs.names(dataset), cache.refs.datasets()
    if not refs and nearest(dataset, datasets):
        return UnknownDataset(
            f"There is no dataset `{dataset}` on this node",
            hint=f"{suggest(dataset, datasets, 'It')} `stagegate ls` shows what the catalog has.",
            dataset=dataset,
        )
    if nearest(ref, refs):
        return UnknownRef(
            f"There is no ref `{ref}` of {dataset} on this node",
            hint=f"{suggest(ref, refs, 'It')} `stagegate ls {dataset}` shows what the catalog has.",
            dataset=dataset,
        )
    return UnknownRef(
        f"This node has no copy of {dataset}@{ref}",
        hint=f"{suggest(ref, refs, f'Of {dataset} it')} Fetch the version with `stagegate stage {dataset}@{ref}`.",
        dataset=dataset,
    )


def read_catalog(url: str | None = None) -> Callable[[Address], str]:
    """Return a resolver of addresses that opens the catalog when it is called; by default STAGEGATE_CATALOG."""

    def resolve(address: Address) -> str:
        try:
            catalog = _open_catalog(url or "")
        except CatalogError as error:
            raise UnknownRef(
                f"{address} is found by the catalog's log, and the catalog can't be read: {error.message}",
                hint="Name the version by its digest, which needs no catalog.",
                dataset=address.dataset,
            ) from error
        return catalog.resolve(address)

    return resolve


def _open_catalog(url: str) -> Catalog:
    from prefect_stagegate.catalog import Catalog  # late: few readers need it
    from prefect_stagegate.jobs.gating.proofs import SignatureProof

    settings = Settings.from_environment(os.environ)
    return Catalog.open(url or settings.catalog, create=False, proof=SignatureProof.by(settings))


def override_of(cache: Cache, address: Address) -> tuple[Workspace, str] | None:
    """Who overrides an address in this process by `override_ref`, and the digest; None where nobody does."""
    for workspace, ref, digest in reversed(_overrides):
        if (workspace.cache.root, ref) == (cache.root, address):
            return workspace, digest
    return None


@contextmanager
def hold_dataset(cache: Cache, address: Address, holder: str = "", *, inherited: bool = False) -> Iterator[OpenDataset]:
    """Find a version, record that it is used, and keep it from being collected during the block.

    `holder` says for people what holds it. With `inherited`, child processes hold it too; see `Leases.hold`.

    Raises:
        UnknownRef: The node has no such ref, or not that version.
    """
    with keep_dataset(cache, address, holder, inherited=inherited) as held:
        cache.views.touch(held.dataset, held.digest)
        yield held


@contextmanager
def keep_dataset(cache: Cache, address: Address, holder: str, *, inherited: bool = False) -> Iterator[OpenDataset]:
    """Hold a version as `hold_dataset` does, without recording a use: eviction still counts it as long unused.

    In a cache that this user can only read, no lease can be written. The version is given all the same, and a warning
    says that nothing holds it.

    Raises:
        UnknownRef: The node has no such ref, or not that version.
    """
    version = locate(cache, address)
    with ExitStack() as stack:
        try:
            stack.enter_context(
                cache.leases.hold(LeaseKind.READER, version.dataset, version.digest, holder, inherited=inherited)
            )
        except CacheError as error:
            # Only a cache that this user can't write to is used without a lease: a full volume may be freed again.
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in ONLY_READABLE:
                raise
            log.warning(
                "%s is read-only for this user, so a collection by its owner may remove %s", cache.root, version.path
            )
        # A collection may have removed it before the lease was there, so look again.
        _view(cache, Address(version.dataset, version.digest), version.digest)
        yield version


@overload
def open_dataset(
    address: str, *, cache: str | os.PathLike[str] | None = None, wait: Literal[True] = True
) -> AbstractContextManager[OpenDataset]: ...
@overload
def open_dataset(
    address: str, *, cache: str | os.PathLike[str] | None = None, wait: Literal[False]
) -> AbstractContextManager[ArrivingDataset]: ...
def open_dataset(
    address: str, *, cache: str | os.PathLike[str] | None = None, wait: bool = True
) -> AbstractContextManager[OpenDataset] | AbstractContextManager[ArrivingDataset]:
    """Open a version, and keep it on this node during the block.

    With `wait`, the version must lie here complete. Without, any version is opened that the catalog knows
    (STAGEGATE_CATALOG), and fetched by another process. A visible version is complete; a file of an arriving version is
    proved before it can be opened.

    Args:
        address: `DATASET@REF`, `DATASET@REF~1` or `DATASET@sha256:<hex>`, which may be abbreviated; without a ref,
            `latest`. For `~1` the catalog is asked, STAGEGATE_CATALOG.
        cache: The node's cache folder; by default STAGEGATE_CACHE.
        wait: Whether the version must be complete before the block begins.

    Raises:
        UnknownRef: The node has no such ref, or not that version; without `wait`, the catalog has it not.
        UnprovedEntry: An entry of the ref lacks signatures which are asked for.
        GateFailed: Without `wait`: the target withdrew the version.

    Example:
        with open_dataset("nycflights@production") as ds:
            train(ds.path)

        with open_dataset("nycflights@production", wait=False) as ds:
            ds.prefetch(order := ds.glob("*.parquet"))
            for path in order:
                train(ds.path(path))
    """
    if not wait:
        from prefect_stagegate.jobs.arriving import open_arriving  # loads the catalog, which other readers don't need

        return open_arriving(Address.parse(address), cache)
    return _open_complete(address, cache)


@contextmanager
def _open_complete(address: str, cache: str | os.PathLike[str] | None) -> Iterator[OpenDataset]:
    wanted = Address.parse(address).counted(read_catalog())
    with hold_dataset(open_cache(cache), wanted, "open_dataset") as held, used(held):
        yield held
