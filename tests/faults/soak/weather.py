"""The server between the workers and SeaweedFS, and what it spoils, by a seed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Self

from soak.truth import VERDICT
from tests.support.faults import Drip, Fault, Flip, Reset, Stall, Status, Truncate
from tests.support.proxy import FaultProxy

STALL = 10.0
"""Seconds that a stalled answer stays open: longer than the workers' idle timeout."""
KEPT = 1000
"""Fetches that are remembered."""
BUSY = Status(503, "SlowDown", retry_after="1")
FAULTS: dict[str, tuple[float, Callable[[int], Fault]]] = {
    "status 503": (0.03, lambda _: BUSY),
    "status 500": (0.01, lambda _: Status(500)),
    "truncated": (0.02, Truncate),
    "reset": (0.01, Reset),
    "flipped": (0.02, Flip),
    "dripping": (0.01, lambda _: Drip(5, 0.2)),
    "stalled": (0.003, Stall),
}
"""How often each happens to a fetch, as a share, and what it is, at a byte of the body."""
REFUSED = 0.003
"""Share of all requests, listings included, that are answered with 503."""


@dataclass
class Weather(FaultProxy):
    """Bad weather, until it is calm."""

    random: Random = field(default_factory=Random)
    faults: Counter[str] = field(default_factory=Counter)
    calm: bool = False
    _drawing: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        super().__enter__()
        self.refuse = self._refusal
        return self

    def begin(self, path: str, wanted: str, who: str, *, signed_address: bool) -> Fault | None:
        """Count a fetch; returns what is to go wrong with it."""
        super().begin(path, wanted, who, signed_address=signed_address)
        if len(self.fetches) > KEPT:
            self.fetches.clear()
        if self.calm or path.endswith(VERDICT):  # which may be empty: nothing of it can be spoilt
            return None
        with self._drawing:
            shares = [share for share, _ in FAULTS.values()]
            (kind,) = self.random.choices([*FAULTS, ""], [*shares, 1 - sum(shares)])
            return self._made(kind, self.random.randrange(90)) if kind else None

    def _made(self, kind: str, at: int) -> Fault:
        self.faults[kind] += 1
        return FAULTS[kind][1](at)

    def _refusal(self, _: str) -> Status | None:
        with self._drawing:
            if self.calm or self.random.random() >= REFUSED:
                return None
            self.faults["requests refused"] += 1
            return BUSY

    def wait(self, seconds: float | None = None) -> None:
        """Wait, though not beyond the proxy's end, and never for hours."""
        super().wait(STALL if seconds is None else seconds)
