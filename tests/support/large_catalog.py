"""A catalog of many datasets with many versions each, as months of daily stagings leave it.

It is written in this process's memory through the catalog's own methods, and then copied into the store, so that 10,000
versions take a minute and a half rather than an hour. No cache holds any of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import IntEnum
from functools import cached_property
from typing import Any

from prefect_stagegate.catalog import Catalog, PolicyEntry, RefAction, RefEntry
from prefect_stagegate.catalog.catalog import FORMAT, FORMAT_KEY, ID_KEY
from prefect_stagegate.catalog.gate_records import put_attestation, put_evidence, put_request
from prefect_stagegate.catalog.records import Records, is_record
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.environment import Environment
from prefect_stagegate.environment.python import Python
from prefect_stagegate.gate.records.attest import attest
from prefect_stagegate.jobs.address import policy_of, read_spec
from prefect_stagegate.model import (
    LATEST,
    Decision,
    DecisionOutcome,
    Entry,
    Evidence,
    Identity,
    Origin,
    Outcome,
    Pin,
)
from prefect_stagegate.model.manifest import Seal, row
from prefect_stagegate.spec import Spec
from tests.support.versions import policy_log, put_spec, put_version

ADA = Identity("ada@example.org", "declared")
WRITERS = 32
DISTRIBUTIONS = 100
OWNERS = {
    "data": "data-eng@example.org",
    "ai": "ml@example.org",
    "infra": "platform@example.org",
    "governance": "legal@example.org",
}
GATES: dict[str, Any] = {
    "pilot": {"require": ["license", "owner", "runbook", {"freshness": {"warn": "20d", "fail": "30d"}}]},
    "production": {"extends": "pilot", "require": ["digest", {"approval": {"from": ["infra"]}}]},
}


class Story(IntEnum):
    """How a dataset's newest version ended; a dataset's number modulo 20 says which, and all others are current."""

    REFUSED = 0
    WAITING = 1
    INCONCLUSIVE = 2
    WITHDRAWN = 3
    ACCEPTED = 4
    UNCHECKED = 5
    EXPIRED = 6
    PROPOSED = 7
    CURRENT = 8


def write_large_catalog(
    records: Records, environment: Environment, datasets: int = 200, versions: int = 50
) -> tuple[str, int]:
    """Fill an empty store with a catalog.

    Args:
        records: The store.
        environment: The environment of all decisions.
        datasets: How many there are: `set-000`, `set-001`, …
        versions: How many each has, one a day, the newest of today; two at least.

    Returns:
        Digest and size of the newest version, which is the same in all datasets.
    """
    # Equal in all datasets, so that each is computed once.
    contents = [_Content(number) for number in range(versions)]
    names = [f"set-{number:03}" for number in range(datasets)]
    small = replace(environment, python=_few_distributions(environment.python))
    identity: dict[str, bytes] = {}
    with ThreadPoolExecutor(WRITERS) as pool:
        for number, name in enumerate(names):
            memory = _MemoryRecords(identity)
            story = Story(min(number % 20, Story.CURRENT))
            _History(memory, name, story, small, contents).write()
            identity = {key: data for key, data in memory.data.items() if key == ID_KEY} or identity
            # False only for a store that was not empty, and for what all datasets share.
            is_new = pool.map(
                lambda item: records.create(*item) or item[0].startswith(("environments/", ID_KEY)), memory.data.items()
            )
            assert all(is_new)
    records.create(FORMAT_KEY, FORMAT)
    return contents[-1].digest, contents[-1].size


def _few_distributions(python: Python) -> Python:
    """As many as a small image has: the digest of all is computed for each decision."""
    return replace(python, distributions=dict(sorted(python.distributions.items())[:DISTRIBUTIONS]))


class _MemoryRecords:
    """Records in a dictionary, and a memory of the entries that were checked."""

    url = "memory"

    def __init__(self, data: Mapping[str, bytes] | None = None) -> None:
        self.data = dict(data or {})
        self._below: dict[str, set[str]] = {}
        self._notes: dict[str, str] = {}

    def read(self, key: str) -> bytes | None:
        return self.data.get(key)

    def read_end(self, key: str, size: int) -> bytes | None:
        return self.data[key][-size:] if key in self.data else None

    def create(self, key: str, data: bytes) -> bool:
        if key in self.data:
            return False
        self.replace(key, data)
        return True

    def remove(self, key: str) -> None:
        raise NotImplementedError

    def replace(self, key: str, data: bytes) -> None:
        assert key == ID_KEY or is_record(key), key
        self.data[key] = data
        folder, _, _ = key.rpartition("/")
        while folder:
            self._below.setdefault(f"{folder}/", set()).add(key)
            folder, _, _ = folder.rpartition("/")

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        return iter(sorted(key for key in self._below.get(prefix, ()) if key > after))

    def folders(self, prefix: str) -> list[str]:
        parts = (key.removeprefix(prefix).partition("/") for key in self._below.get(prefix, ()))
        return sorted({name for name, slash, _ in parts if slash})

    def note(self, name: str, note: str) -> None:
        self._notes[name] = note

    def noted(self, name: str) -> str | None:
        return self._notes.get(name)


@dataclass(frozen=True)
class _Content:
    """What a version holds: ten files, of which one differs from the version before."""

    number: int
    records: dict[str, bytes] = field(default_factory=dict, compare=False)
    """Its manifest and its origins as stored, by the part of their keys behind the dataset."""

    @cached_property
    def entries(self) -> list[Entry]:
        """The files, sorted by path."""
        # A file is of the last version whose number ends with the file's.
        written = (max(self.number - (self.number - file) % 10, 0) for file in range(10))
        names = [f"part-{file}.parquet {version}" for file, version in enumerate(written)]
        return [
            Entry(name.split()[0], 1000 + len(name), f"blake3:{hashlib.sha256(name.encode()).hexdigest()}")
            for name in names
        ]

    @cached_property
    def origins(self) -> list[Origin]:
        """Where the files came from."""
        pin = Pin("etag", str(self.number), "strong")
        return [
            Origin(entry.path, "s3://lake/things/", entry.path, entry.size, pin, "computed", entry.digest)
            for entry in self.entries
        ]

    @cached_property
    def digest(self) -> str:
        """The version's digest."""
        return "sha256:" + hashlib.sha256(b"".join(map(row, self.entries))).hexdigest()

    @cached_property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)


class _History:
    """One dataset: each version is staged, checked and promoted; the newest ends as the story says."""

    def __init__(
        self,
        records: _MemoryRecords,
        dataset: str,
        story: Story,
        environment: Environment,
        contents: Sequence[_Content],
    ) -> None:
        self.dataset, self.story, self.contents = dataset, story, contents
        self._records, self._catalog = records, Catalog(records, memory=records)
        self._environment, self._fingerprint = environment, environment.fingerprint
        self._begin = now() - timedelta(days=len(contents) - 1, hours=3)
        if story is Story.EXPIRED:
            self._begin -= timedelta(days=40)
        self._spec = self._read_spec(GATES)
        self._policy = policy_of(self._spec)
        self._adoption = PolicyEntry(1, dataset, self._policy, ADA, stamp(self._begin), "the first")

    def write(self) -> None:
        """Write all records."""
        self._adoption = policy_log(self._catalog, self.dataset).append(self._adoption)
        for content in self.contents:
            self._stage(content)
            is_last = content is self.contents[-1]
            if is_last and self.story is Story.UNCHECKED:
                return
            if is_last and self.story in (Story.REFUSED, Story.INCONCLUSIVE):
                self._decide(content, "pilot", DecisionOutcome(self.story.name.lower()))
                return
            accepted = self._decide(content, "pilot", DecisionOutcome.ACCEPTED)
            if is_last and self.story is Story.ACCEPTED:
                return
            self._promote(content, "pilot", accepted)
            if is_last and self.story is Story.WAITING:
                self._decide(content, "production", DecisionOutcome.WAITING)
                policy = self._spec.gate("production").policy
                after = len(self.contents) - 1
                put_request(self._catalog, self.dataset, content.digest, "production", policy, ADA, after=after)
                return
            accepted = self._decide(content, "production", DecisionOutcome.ACCEPTED)
            self._promote(content, "production", accepted)
        if self.story is Story.WITHDRAWN:
            refused = self._decide(self.contents[-1], "production", DecisionOutcome.REFUSED, hours=2)
            self._append(self.contents[-1], "production", RefAction.WITHDRAW, refused)
        if self.story is Story.PROPOSED:
            changed = self._read_spec({**GATES, "pilot": {"require": ["license"]}}).canonical()
            put_spec(self._catalog, self.dataset, self.contents[-1].digest, changed)

    def _read_spec(self, gates: dict[str, Any]) -> Spec:
        keys = {"license": "CC0-1.0", "runbook": "https://wiki.example.org/things", "owners": OWNERS, "gates": gates}
        sources = [{"url": "s3://lake/things/"}]
        return read_spec({"stagegate": 1, "dataset": self.dataset, "sources": sources, **keys})

    def _at(self, content: _Content, hours: int = 0) -> datetime:
        return self._begin + timedelta(days=content.number, hours=hours)

    def _stage(self, content: _Content) -> None:
        self._put_version(content)
        put_spec(self._catalog, self.dataset, content.digest, self._spec.canonical())
        self._append(content, LATEST, RefAction.STAGE, {})

    def _put_version(self, content: _Content) -> None:
        """Write the manifest and the origins once, and then copy them: they say nothing of their dataset."""
        if not content.records:
            one = _MemoryRecords()
            version = Seal(content.digest, len(content.entries), content.size)
            put_version(Catalog(one), self.dataset, version, content.entries, content.origins)
            content.records.update({key.split("/", 2)[2]: data for key, data in one.data.items()})
        for name, data in content.records.items():
            self._records.replace(f"datasets/{self.dataset}/{name}", data)

    def _decide(self, content: _Content, target: str, outcome: DecisionOutcome, hours: int = 1) -> dict[str, Any]:
        at, gate = self._at(content, hours), self._spec.gate(target)
        worst = {
            DecisionOutcome.REFUSED: ("runbook", Outcome.FAIL),
            DecisionOutcome.INCONCLUSIVE: ("runbook", Outcome.INCONCLUSIVE),
            DecisionOutcome.WAITING: ("approval", Outcome.INCONCLUSIVE),
        }.get(outcome)
        checks = tuple(
            Evidence(
                requirement.check,
                worst[1] if worst and worst[0] == requirement.check else Outcome.PASS,
                f"{requirement.check} of {self.dataset}",
                "infra" if requirement.check == "runbook" else "governance",
                binding={"version": content.digest, "policy": gate.policy, "check_version": "1"},
                at=stamp(at),
                expires=stamp(at + timedelta(days=30)) if requirement.check == "freshness" else "",
                awaiting=("infra",) if worst and worst[0] == requirement.check == "approval" else (),
                seconds=0.1,
            )
            for requirement in gate.requirements
        )
        decision = Decision(
            self.dataset,
            content.digest,
            target,
            outcome,
            checks,
            gate.policy,
            self._fingerprint,
            stamp(at),
            stamp(at + timedelta(days=30)),
            ADA.name,
            self._adoption.digest,
            max(content.number, 0) + (hours > 1),
        )
        statement = attest(decision, self._environment)
        put_evidence(self._catalog, self.dataset, content.digest, checks)
        put_attestation(self._catalog, self.dataset, content.digest, target, statement)
        return statement

    def _promote(self, content: _Content, target: str, statement: dict[str, Any]) -> None:
        self._append(content, target, RefAction.PROMOTE, statement)

    def _append(self, content: _Content, ref: str, action: RefAction, statement: dict[str, Any]) -> None:
        withdraws = action is RefAction.WITHDRAW
        self._catalog.ref_log(self.dataset, ref).append(
            RefEntry(
                seq=content.number + 1 + withdraws,
                dataset=self.dataset,
                ref=ref,
                digest=content.digest,
                action=action,
                who=ADA,
                at=stamp(self._at(content, 2 + withdraws if statement else 0)),
                reason="failed when it was checked again: runbook" if withdraws else "",
                withdrawn=content.digest if withdraws else "",
                attestation=statement,
            )
        )
