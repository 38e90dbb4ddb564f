"""One round of bad weather between a cache and an S3 server: everything in it follows from a seed.

    report = round(seed, server, folder)

Objects are put into a bucket of the round's own and staged by the real `stage` through a fault proxy. What goes wrong
with a request is drawn from the seed, its key, its range and how often it came, so threads that come in another order
meet the same weather. The end is the exact version, or a typed error with nothing visible; then the sky clears, and the
next staging must converge. `replay(seed)` is the command that repeats a round.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from blake3 import blake3

from prefect_stagegate.errors import StagegateError, TransferFailed
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import LATEST, Version
from prefect_stagegate.testing.servers import OWNER, RENEWED, SeaweedFS
from prefect_stagegate.transport.transfer import Limits
from prefect_stagegate.workspace import Workspace
from tests.support.faults import Drip, Fault, Flip, Reset, Stall, Status, Truncate
from tests.support.listings import Lie, Pages
from tests.support.proxy import FaultProxy, Fetch

PART = 1 << 16
RETRIES = 20
IN_FLIGHT = 8
LOOKS = 4
"""How often one read may begin anew without a retry: its bytes were wrong twice, or its object was replaced."""
READS = ("busy", "failing", "truncate", "reset", "flip", "stall", "drip", "swap")
"""What may happen to a read of an object."""
RARE = ("expire", "drop", "repeat")
"""What may happen to all requests, or to listings: a climate holds one of them or none, since a lie ends a staging."""


def replay(seed: int) -> str:
    """The command that repeats a round."""
    return f"FAULT_SEED={seed} .venv/bin/pytest tests/faults/test_weather.py"


def climate(seed: int) -> tuple[tuple[str, ...], float]:
    """What may go wrong, and how likely it is for each read."""
    rng = Random(f"climate {seed}")
    kinds = rng.sample(READS, rng.randint(1, 4)) + [kind for kind in RARE if rng.random() < 1 / 6][:1]
    return tuple(sorted(kinds)), rng.choice((0.1, 0.3, 0.9))


@dataclass
class Report:
    """What a round saw."""

    seed: int
    kinds: tuple[str, ...]
    chance: float
    """How likely a fault is, for each read."""
    outcome: str = ""
    """`exact`, or the name of the typed error."""
    faults: Counter[str] = field(default_factory=Counter)
    """What went wrong, and how often."""
    fetches: int = 0
    """Reads of objects while the weather was bad."""

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items())) or "no fault"
        climate = f"seed {self.seed}: {'+'.join(self.kinds)} at {self.chance:.0%}"
        return f"{climate}: {faults} in {self.fetches} reads → {self.outcome}"


def round(seed: int, server: SeaweedFS, folder: Path) -> Report:  # noqa: A001 - what it is
    """Stage through bad weather, then through good; raise `AssertionError` when a promise is broken.

    Args:
        seed: Everything that happens follows from it.
        server: The S3 server; a bucket is made there, and removed at the end.
        folder: Holds `cache` and `catalog`, which rounds may share.
    """
    print(f"weather: {replay(seed)}")
    try:
        with Sky(seed, server) as sky:
            return _round(sky, folder)
    except BaseException as error:
        error.add_note(f"Replay it: {replay(seed)}")
        raise


class Sky:
    """The bucket, what it holds, and the proxy that breaks what comes from it."""

    def __init__(self, seed: int, server: SeaweedFS) -> None:
        self.rng = rng = Random(f"objects {seed}")
        self.report = Report(seed, *climate(seed))
        self.server = server
        self.bucket = f"weather-{seed}-{os.urandom(3).hex()}"
        self.dataset = self.bucket
        self.objects = {f"small/{n}.bin": rng.randbytes(rng.randint(0, 20_000)) for n in range(12)}
        self.objects |= {f"large/{n}.bin": rng.randbytes(rng.randint(2, 6) * PART + n) for n in range(3)}
        self.before = dict(self.objects)
        """What each object held before it was swapped."""
        self._client, self._lock = server.client(), threading.Lock()
        self._seen: Counter[tuple[str, str]] = Counter()
        self._life = rng.randint(1, 10)  # requests until the first credentials expire
        self._granted = 0

    def __enter__(self) -> Sky:
        self._client.mkdir(self.bucket)
        self.put(self.objects)
        self.proxy = FaultProxy(self.server.endpoint_url).__enter__()
        self.proxy.pages = Pages(4)
        return self

    def __exit__(self, *_: object) -> None:
        self.proxy.__exit__()
        with suppress(OSError):
            self._client.rm(self.bucket, recursive=True)

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Put objects into the bucket; some may be there."""
        for key, data in objects.items():
            self._client.pipe_file(f"{self.bucket}/{key}", data)
        self.objects = {**self.objects, **objects}

    def spec(self) -> dict[str, Any]:
        # Where no byte flips, nothing but the pin of each read keeps two states of an object apart.
        checked = "flip" in self.report.kinds
        source = {
            "url": f"s3://{self.bucket}/",
            "options": {"endpoint_url": self.proxy.url, "etag_is_md5": checked},
            "credentials": "aws-credentials/weather",
        }
        return {"stagegate": 1, "dataset": self.dataset, "sources": [source]}

    def credentials(self, _: str) -> dict[str, str]:
        """The first who ask get keys that expire when the climate has it so."""
        self._granted += 1
        keys = OWNER if self._granted == 1 else RENEWED
        return {"key": keys.key, "secret": keys.secret}

    def darken(self) -> None:
        """From here on things go wrong."""
        self._granted = 0
        self.proxy.fetches.clear()
        self.proxy.break_with(self._fault)
        self.proxy.refuse = self._refusal
        assert self.proxy.pages
        self.proxy.pages.lie = self._lie

    def clear(self) -> None:
        """From here on all goes well."""
        self.report.fetches = len(self.proxy.fetches)
        assert self.proxy.pages
        self.report.faults.update(f"listing-{lie}" for lie in self.proxy.pages.lies)
        self.proxy.break_with(lambda _: None)
        self.proxy.refuse = lambda _: None
        self.proxy.pages.lie = lambda _: None

    def _fault(self, fetch: Fetch) -> Fault | None:
        key = fetch.path.removeprefix(f"/{self.bucket}/")
        with self._lock:
            attempt = self._seen[key, fetch.range]
            self._seen[key, fetch.range] += 1
            rng = Random(f"{self.report.seed} {key} {fetch.range} {attempt}")
            kinds = [kind for kind in self.report.kinds if kind in READS]
            if rng.random() >= self.report.chance:
                return None
            kind = rng.choice(kinds)
            if kind == "stall" and self.report.faults[kind] >= 2:  # each costs a second
                return None
            if kind == "swap" and (attempt or self.objects[key] != self.before[key] or not key.startswith("large/")):
                return None
            self.report.faults[kind] += 1
            if kind != "swap":
                return _fault(kind, rng)
            self.put({key: rng.randbytes(len(self.objects[key]))})
            return None

    def _refusal(self, who: str) -> Status | None:
        if "expire" not in self.report.kinds or who != OWNER.key:
            return None
        with self._lock:
            self._life -= 1
            if self._life >= 0:
                return None
            self.report.faults["expire"] += 1
            return Status(403, "ExpiredToken")

    def _lie(self, page: int) -> Lie | None:
        lies = [lie for lie in Lie if lie in self.report.kinds]
        return lies[page % len(lies)] if lies and page == 1 + self.report.seed % 2 else None


def _fault(kind: str, rng: Random) -> Fault:
    after = rng.choice((0, 1, rng.randint(2, 5_000), PART - 1))
    faults: dict[str, Fault] = {
        "busy": Status(503, "SlowDown", retry_after=rng.choice(("", "0", "0", "0", "1"))),
        "failing": Status(rng.choice((500, 502))),
        "truncate": Truncate(after),
        "reset": Reset(after),
        "flip": Flip(rng.randint(0, PART)),
        "stall": Stall(after),
        "drip": Drip(rng.randint(2, 20), 0.005),
    }
    return faults[kind]


def _round(sky: Sky, folder: Path) -> Report:
    opened = open_workspace(folder / "cache", folder / "catalog", resolve_credentials=sky.credentials)
    limits = Limits(in_flight=IN_FLIGHT, part=PART, memory=16 * PART, retries=RETRIES, idle=1.0)
    workspace = replace(opened, settings=replace(opened.settings, others=(limits,)))
    before = _head_start(sky, workspace)
    sky.darken()
    version = None
    try:
        version = stage(workspace, sky.spec())
        sky.report.outcome = "exact"
    except StagegateError as error:
        sky.report.outcome = _name(error)
    sky.clear()
    if version:
        _require_exact(version, [sky.before, sky.objects])
        assert _visible(sky, workspace)[0] == version.digest
    else:
        assert _visible(sky, workspace) == before, f"something is visible after {sky.report.outcome}"
    _require_budget(sky)
    _require_sound_blobs(workspace)
    version = stage(workspace, sky.spec())
    _require_exact(version, [sky.objects])
    _require_sound_blobs(workspace)
    print(sky.report)
    return sky.report


def _head_start(sky: Sky, workspace: Workspace) -> tuple[str, Sequence[str]]:
    """Stage once in good weather and change some objects: always where a page is dropped, which only this can tell."""
    if "drop" in sky.report.kinds or sky.rng.random() < 0.25:
        stage(workspace, sky.spec())
        changed = sky.rng.sample(sorted(sky.objects), 4)
        sky.put({key: sky.rng.randbytes(len(sky.objects[key]) + 1) for key in changed})
        sky.before = dict(sky.objects)
    return _visible(sky, workspace)


def _visible(sky: Sky, workspace: Workspace) -> tuple[str, Sequence[str]]:
    """What `latest` names, and the version's folders on this node."""
    head = workspace.catalog.ref(sky.dataset, LATEST)
    return head.digest if head else "", sorted(
        str(path) for path in (workspace.cache.root / "views").glob(f"{sky.dataset}/*") if path.is_dir()
    )


def _name(error: StagegateError) -> str:
    inner = {type(failure).__name__ for failure in error.failures} if isinstance(error, TransferFailed) else set[str]()
    return f"{type(error).__name__}({', '.join(sorted(inner))})" if inner else type(error).__name__


def _require_exact(version: Version, states: Sequence[Mapping[str, bytes]]) -> None:
    """Every file is one of its object's states, whole, and the digest is the one of these files."""
    files = {str(path.relative_to(version.path)): path for path in version.path.rglob("*") if path.is_file()}
    assert files.keys() == states[0].keys()
    rows = hashlib.sha256()
    for name in sorted(files, key=str.encode):
        data = files[name].read_bytes()
        assert any(data == state[name] for state in states), f"{name} holds bytes that its object never had"
        rows.update(f"{name}\0{len(data)}\0blake3:{blake3(data).hexdigest()}\n".encode())
    assert version.digest == f"sha256:{rows.hexdigest()}"


def _require_budget(sky: Sky) -> None:
    """No source is asked more often than its budget of retries has it.

    What is refused at a signed address is asked once more by obstore, which tells why: as many as are under way then.
    """
    looks = LOOKS if {"flip", "swap"} & set(sky.report.kinds) else 1
    reads = sum(max(1, -(-len(data) // PART)) for data in sky.objects.values()) * looks
    most = reads + RETRIES + reads / 10 + (IN_FLIGHT if "expire" in sky.report.kinds else 0)
    assert sky.report.fetches <= most, f"{sky.report.fetches} reads, and {most} are the most"


def _require_sound_blobs(workspace: Workspace) -> None:
    for path in (workspace.cache.root / "blobs").glob("*/*"):
        assert blake3(path.read_bytes()).hexdigest() == path.name
