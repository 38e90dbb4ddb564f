"""Playing many cases within a time, and what must hold for each of them and for all."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import resource
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from prefect_stagegate.errors import AdapterFailed, StagegateError

CASE_SECONDS = 60.0
"""Longer than any case takes that ends by itself; the idle time of a fuzzed source is a small part of it."""
WARM_CASES = 40
"""Cases until libraries are loaded and pools are filled; memory is measured from then on."""
GROWTH = 64 << 20
"""Bytes by which memory may grow after that, however many cases there are."""
PEAK = 512 << 20
"""Bytes by which memory may grow for a moment, since a mutated length may name any size."""
FAILURES = 20
"""Failures after which a campaign ends: the first ones tell enough."""


_M_ARENA_MAX = -8
# Each case has threads of its own, and each may take an arena that glibc keeps in pieces: resident memory would grow by
# what nobody holds, and hide a leak.
ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


class WrongOutcome(AssertionError):
    """A case that ended in something that must never be: wrong bytes, or an acceptance that nobody gave."""


@dataclass(frozen=True)
class Budget:
    """How long a campaign lasts, and what it draws."""

    seed: int = 0
    cases: int = 1_000_000
    seconds: float = 10.0
    only: int | None = None
    """The one case to play; None for all."""

    @classmethod
    def of_environment(cls) -> Budget:
        """What FUZZ_SEED, FUZZ_CASES, FUZZ_SECONDS and FUZZ_CASE ask for."""
        options = {
            name: text
            for name in ("seed", "cases", "seconds", "case")
            if (text := os.environ.get(f"FUZZ_{name.upper()}"))
        }
        return cls(
            int(options.get("seed", cls.seed)),
            int(options.get("cases", cls.cases)),
            float(options.get("seconds", cls.seconds)),
            int(options["case"]) if "case" in options else None,
        )


@dataclass
class Figures:
    """What a campaign came to."""

    name: str
    seed: int
    cases: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    """Seconds of the case that took longest."""
    memory_before: int = 0
    """Resident bytes when it was warm."""
    memory_after: int = 0
    peak: int = 0
    """Resident bytes at most, since it was warm."""
    outcomes: Counter[str] = field(default_factory=Counter)
    unforeseen: dict[str, int] = field(default_factory=dict)
    """What adapters failed with that they should have had words for, each with the first case that shows it."""
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """The figures as one line a kind."""
        sizes = [f"{size / 2**20:.0f} MiB" for size in (self.memory_before, self.memory_after, self.peak)]
        return (
            f"{self.name}: seed {self.seed}, {self.cases} cases in {self.seconds:.1f} s, "
            f"the longest {self.longest:.1f} s; memory {sizes[0]} → {sizes[1]}, peak {sizes[2]}; "
            f"{len(self.failures)} failures\n"
            f"    {', '.join(f'{kind} {count}' for kind, count in self.outcomes.most_common())}"
            + "".join(f"\n    case {case}: {problem}" for problem, case in self.unforeseen.items())
        )


def run_campaign(name: str, budget: Budget, play: Callable[[int, random.Random], str]) -> Figures:
    """Play the cases of a campaign while there is time.

    Args:
        name: Of the campaign, as `make fuzz ONLY=` has it.
        budget: How long, and from which seed.
        play: Plays the case of a number, drawn from a generator of its own; returns in a word how it ended. It may
            raise `StagegateError`, which is an outcome too; everything else is a failure.
    """
    figures = Figures(name, budget.seed)
    begin = time.monotonic()
    numbers = range(budget.cases) if budget.only is None else [budget.only]
    for number in numbers:
        if time.monotonic() - begin > budget.seconds or len(figures.failures) >= FAILURES:
            break
        if number in (0, WARM_CASES):
            figures.memory_before = figures.peak = resident()
        if not _play_one(figures, number, play):
            break  # what hangs may hold what the next cases need
        figures.peak = max(figures.peak, resident(settled=False))
    figures.seconds = time.monotonic() - begin
    figures.memory_after = resident()
    if budget.only is None:
        _judge_memory(figures)
    print(figures)
    return figures


def require_clean(figures: Figures) -> None:
    """Fail with what the failures were, and how to repeat them."""
    if figures.failures:
        raise AssertionError(f"{figures}\n" + "\n".join(figures.failures))


def resident(*, settled: bool = True) -> int:
    """Resident bytes of this process; settled: after everything that can be given back was."""
    if settled:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _play_one(figures: Figures, number: int, play: Callable[[int, random.Random], str]) -> bool:
    """Play one case; False when it did not end."""
    generator = random.Random(f"{figures.seed}/{number}")
    ended: list[str] = []
    thread = threading.Thread(target=lambda: ended.append(_outcome(figures, number, generator, play)), daemon=True)
    begin = time.monotonic()
    thread.start()
    thread.join(CASE_SECONDS)
    figures.longest = max(figures.longest, time.monotonic() - begin)
    figures.cases += 1
    if thread.is_alive():
        frame = sys._current_frames().get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame else ""
        figures.failures.append(_named(figures, number, f"did not end within {CASE_SECONDS:g} s:\n{stack}"))
    elif ended:
        figures.outcomes[ended[0]] += 1
    return not thread.is_alive()


def _outcome(figures: Figures, number: int, generator: random.Random, play: Callable[[int, random.Random], str]) -> str:
    try:
        return play(number, generator)
    except StagegateError as error:
        if isinstance(error, AdapterFailed):
            figures.unforeseen.setdefault(error.message[:300], number)
        return type(error).__name__
    except WrongOutcome as error:
        figures.failures.append(_named(figures, number, str(error)))
        return "wrong"
    except BaseException:  # noqa: BLE001 - whatever it is, nobody may meet it
        figures.failures.append(_named(figures, number, f"an error without a type:\n{traceback.format_exc()}"))
        return "untyped"


def _named(figures: Figures, number: int, problem: str) -> str:
    return f"make fuzz ONLY={figures.name} SEED={figures.seed} CASE={number}: {problem}"


def _judge_memory(figures: Figures) -> None:
    for word, size, most in (
        ("grew", figures.memory_after - figures.memory_before, GROWTH),
        ("peaked", figures.peak - figures.memory_before, PEAK),
    ):
        if figures.cases > WARM_CASES and size > most:
            figures.failures.append(f"{figures.name}, seed {figures.seed}: memory {word} by {size >> 20} MiB")
