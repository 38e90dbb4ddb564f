"""One dataset on several nodes after promotions, what is promised of it, and which problems there are.

The oracle reads files and its own notes of what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from blake3 import blake3

from prefect_stagegate.catalog import RefAction, RefEntry, moves, withdrawn
from prefect_stagegate.errors import UnknownRef
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.read import open_dataset
from prefect_stagegate.jobs.review.audit import verify_history
from prefect_stagegate.model import Address, Entry, Promotion
from prefect_stagegate.model.manifest import seal
from prefect_stagegate.plugins.retention.erase_on_node import erase_on_node
from prefect_stagegate.plugins.retention.erasure import NodeErasure, erasures_of, glob_of, plan_erasure, record_erasure
from prefect_stagegate.plugins.retention.expire import VersionFate, expire
from prefect_stagegate.plugins.retention.tombstones import unfinished
from prefect_stagegate.plugins.watch.holding import hold_of
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace
from tests.support.scenario import Scenario
from tests.support.verdicts import say
from tests.support.versions import read_manifest, read_origins, staged_spec

DATASET = "things"
TARGETS = ("staging", "production")
NODES = ("cache", "other", "third")
"""The first one stages; its cache has its name."""
HEX = "[0-9a-f]" * 64
PERSON = b"name\nada\n"
"""The bytes of a file that several versions have."""


class AfterPromotion(Scenario):
    """The dataset, and what is known of it by whoever did all that was done.

    Args:
        folder: Holds everything.
        newest: The policy's `retain.newest`.
        named: Its `retain.named`.
        on_failure: What `watch` does, by target.
    """

    def __init__(self, folder: Path, *, newest: int, named: bool, on_failure: dict[str, str]) -> None:
        self.watches = {target: {"checks": ["verdict"], "on_failure": on_failure[target]} for target in TARGETS}
        gates = {
            "staging": {"require": ["license", "verdict"], "watch": self.watches["staging"]},
            "production": {"extends": "staging", "require": ["license"], "watch": self.watches["production"]},
        }
        super().__init__(folder, gates=gates, retain={"newest": newest, "named": named})
        self.newest, self.keeps_named, self.on_failure = newest, named, on_failure
        self.files: dict[str, dict[str, bytes]] = {}
        """Of each version that was ever staged, or begun to be, by its digest."""
        self.verdicts: dict[str, str] = {}
        self.passed: set[str] = set()
        """Versions that the check ever passed."""
        self.keepers: set[tuple[str, str]] = set()
        """`pin`, `run` or `reader`, and the digest of a version that the catalog had when that began to keep it."""
        self.readers = ExitStack()
        self.proved: dict[str, set[bytes]] = {node: set() for node in NODES}
        """What a node proved to have erased."""
        self.judged = dict.fromkeys(TARGETS, 0)
        """Entries of each target's log that were judged."""
        self.reinstates = False
        """Whether the last promotion might reinstate a version."""
        self.oracle = self.node()
        self.catalog = self.oracle.catalog
        self.says("", "pass")
        self.look()

    def look(self) -> None:
        """Note what moves of targets are judged by that come after this."""
        self.held = {target for target in TARGETS if self.hold(target)}
        self.condemned = {stone.digest for stone in unfinished(self.catalog, DATASET)}

    # ── what is done ────────────────────────────────────────────────────────────────────────────────────────────

    def deliver_version(self, number: int) -> tuple[str, dict[str, Any]]:
        """Put a version of a file or two at the source; gives its digest, and the keys of the spec that has it."""
        files = {f"{number}.csv": b"a,b\n%d,%d\n" % (number, number), **({"person.csv": PERSON} if number % 2 else {})}
        for name, data in files.items():
            (self.nas / name).write_bytes(data)
        entries = (Entry(name, len(data), f"blake3:{blake3(data).hexdigest()}") for name, data in files.items())
        digest = seal(entries).digest
        self.files[digest] = files
        # Files of other versions stay, so that other nodes can fetch them.
        return digest, {"sources": [{"url": str(self.nas), "include": [*files]}]}

    def version(self, number: int) -> str:
        """Stage a version; gives its digest."""
        return self.stage(**self.deliver_version(number)[1]).digest

    def says(self, digest: str, outcome: str) -> None:
        """Say what the check finds of a version from here on."""
        self.verdicts[digest] = outcome
        say(self.folder, self.verdicts)

    def promote_to(self, address: Address, target: str, *, reinstate: bool) -> Promotion:
        """Promote a version that was checked."""
        self.reinstates = reinstate
        return promote(self.node(), address, target, reinstate=reinstate)

    def read(self, digest: str) -> None:
        """Begin to read a version that the first node has."""
        self.readers.enter_context(open_dataset(f"{DATASET}@{digest}", cache=self.folder / "cache"))
        self.keeps("reader", digest)

    def stop_reading(self) -> None:
        """End all readers."""
        self.readers.close()
        self.keepers = {pair for pair in self.keepers if pair[0] != "reader"}

    def keeps(self, what: str, digest: str) -> None:
        """Note that something keeps a version from here on."""
        self.keepers |= {(what, digest)} if digest in self.versions else set()

    def expire(self) -> list[VersionFate]:
        """What became of each version."""
        unreadable = UnreadableRecords()
        fates = expire(self.node(), [DATASET], unreadable, settling=0)
        assert not unreadable.all
        return fates

    def erase(self, digest: str, number: int) -> list[NodeErasure]:
        """Erase a file of a version, also on the first node."""
        name = [*self.files[digest]][-number]
        planned = plan_erasure(self.node(), DATASET, digest, glob_of((name,), ()))
        record_erasure(self.node(), DATASET, *planned, "asked")
        return self.erase_on("cache")

    @property
    def erased(self) -> set[bytes]:
        """What the erasures on record are about: one that was killed may have left none."""
        blobs = {blob for erasure in erasures_of(self.catalog, DATASET) for blob in erasure.digests}
        known = {data for files in self.files.values() for data in files.values()} if blobs else set()
        return {data for data in known if f"blake3:{blake3(data).hexdigest()}" in blobs}

    def erase_on(self, node: str) -> list[NodeErasure]:
        """A node's part in all erasures."""
        answers = erase_on_node(self.at(node), DATASET)
        if all(answer.is_proved for answer in answers):
            self.has_erased(node)
        return answers

    def has_erased(self, node: str) -> None:
        """Note that a node proved all erasures."""
        self.proved[node] |= self.erased

    def at(self, node: str) -> Workspace:
        """A node."""
        return self.node(cache="" if node == "cache" else node)

    def head(self, ref: str) -> str:
        """The digest that a ref names; empty when there is no such ref."""
        return log[-1].digest if (log := self.log(ref)) else ""

    # ── what is promised ────────────────────────────────────────────────────────────────────────────────────────

    def is_whole(self, digest: str) -> bool:
        """Whether no byte of a version was erased."""
        return not self.erased & {*self.files[digest].values()}

    @property
    def versions(self) -> set[str]:
        """The versions that have a manifest."""
        folder = self.folder / "catalog/datasets" / DATASET / "manifests"
        return {f"sha256:{path.stem}" for path in folder.glob("*.parquet")}

    @property
    def heads(self) -> set[str]:
        """The versions that refs name."""
        return {log[-1].digest for ref in ("latest", *TARGETS) if (log := self.log(ref))}

    @property
    def staged(self) -> list[str]:
        """Versions in the order of their last stagings."""
        digests = [entry.digest for entry in reversed(self.log("latest"))]
        return [*dict.fromkeys(digests)][::-1]

    def log(self, ref: str) -> list[RefEntry]:
        """A ref's log."""
        return self.catalog.history(DATASET, ref)

    def hold(self, target: str) -> str:
        """The version because of which a target is held; empty where it is not."""
        hold = hold_of(self.oracle, DATASET, target)
        return hold.digest if hold else ""

    def kept(self) -> set[str]:
        """The versions that something keeps."""
        named = {entry.digest for target in TARGETS for entry in moves(self.log(target))} if self.keeps_named else set()
        newest = [digest for digest in self.staged if digest in self.versions][-self.newest :]
        held = {self.hold(target) for target in TARGETS} - {""}
        # A pin keeps no version that is no longer whole.
        kept = {digest for what, digest in self.keepers if what != "pin" or self.is_whole(digest)}
        return self.heads | named | {*newest} | held | kept

    def problems(self) -> Iterator[str]:
        """What is broken of all that is promised."""
        for digest in self.kept() - self.versions:
            yield f"lost a version that something keeps: {digest}"
        for digest in self.heads:
            yield from self._incomplete(digest)
        for target in TARGETS:
            log = self.log(target)
            for entry in log[self.judged[target] :]:
                yield from self._moved_wrongly(log[: entry.seq - 1], entry)
            self.judged[target] = len(log)
        yield from (problem for chain in verify_history(self.oracle) for problem in chain.problems)
        for digest in {*self.staged} - self.versions:
            try:
                read_manifest(self.catalog, DATASET, digest)
            except UnknownRef as error:
                if "expired on" not in error.message:
                    yield f"nothing tells why {digest} is gone: {error.message}"
        for node in NODES:
            yield from self._wrong_bytes(node)
        self.look()

    def _incomplete(self, digest: str) -> Iterator[str]:
        """What a version lacks that a ref names."""
        catalog, files = self.catalog, self.files[digest]
        sizes = {entry.path: entry.size for entry in read_manifest(catalog, DATASET, digest).entries()}
        if sizes != {name: len(data) for name, data in files.items()}:
            yield f"{digest} has the entries {sizes}"
        if {origin.path for origin in read_origins(catalog, DATASET, digest)} != {*files}:
            yield f"{digest} has not the origins of its entries"
        if not staged_spec(catalog, DATASET, digest):
            yield f"{digest} has no spec"

    def _moved_wrongly(self, before: list[RefEntry], entry: RefEntry) -> Iterator[str]:
        """Why a target may not have been moved."""
        move, gone = f"{entry.action} of {entry.ref} to {entry.digest}", withdrawn(before)
        if entry.action is RefAction.WITHDRAW:
            return
        if not self.is_whole(entry.digest):
            yield f"{move}, which was erased"
        if entry.digest in self.condemned:
            yield f"{move}, which is about to expire"
        if entry.digest in gone and not self.reinstates:
            yield f"{move}, which was withdrawn"
        if entry.action is RefAction.ROLLBACK and entry.digest not in {each.digest for each in moves(before)}:
            yield f"{move}, which it never named"
        if entry.action is RefAction.PROMOTE:
            decision = entry.attestation["predicate"]["stagegate"]["decision"]
            if decision["outcome"] != "accepted" or entry.digest not in self.passed:
                yield f"{move}, which its gate did not accept"
            if entry.ref in self.held:
                yield f"{move}, although it is held"

    def _wrong_bytes(self, node: str) -> Iterator[str]:
        """Erased bytes that a node has though it proved that it has none, and versions that lack files there."""
        root = self.folder / node
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink() and path.read_bytes() in self.proved[node]:
                yield f"{path} was erased"
        for view in root.glob(f"views/{DATASET}/{HEX}"):
            files = self.files[f"sha256:{view.name}"]
            found = {path.name: path.read_bytes() for path in view.iterdir()}
            is_short = found.keys() != files.keys() and self.is_whole(f"sha256:{view.name}")
            if is_short or not found.items() <= files.items():
                yield f"{node} has of {view.name} only {found}"
