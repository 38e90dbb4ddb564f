"""What was counted: the line a minute, the summary, and the place in docs/reliability.md."""

from __future__ import annotations

import json
import os
import platform
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"
MB = 1e6


@dataclass
class Figures:
    """Counts of one run."""

    seed: int
    hours: float
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    jobs: Counter[str] = field(default_factory=Counter)
    """Jobs that ended well, by their name."""
    errors: Counter[str] = field(default_factory=Counter)
    """Typed errors that jobs ended with, by `job: name`."""
    counts: Counter[str] = field(default_factory=Counter)
    """Everything else."""
    faults: Counter[str] = field(default_factory=Counter)
    """What the weather spoilt, by kind."""
    violations: list[str] = field(default_factory=list)
    rss: dict[str, int] = field(default_factory=dict)
    """Bytes that each process which lives all the time has of its own, the most that was seen. A line tells of the
    resident."""
    blobs: int = 0
    views: int = 0

    def take(self, report: dict[str, Any]) -> None:
        """Count what a worker told about a job."""
        if "error" in report:
            self.errors[f"{report['did']}: {report['error']}"] += 1
        elif "did" in report:
            self.jobs[report["did"]] += 1
        self.counts.update({f"{report.get('did')} {name}": report[name] for name in report.keys() & COUNTED})

    def record_memory(self, role: str, size: int) -> None:
        """Keep the most bytes that a process was seen to have."""
        self.rss[role] = max(size, self.rss.get(role, 0))

    def line(self) -> str:
        """The line a minute."""
        self.seconds = time.monotonic() - self.began
        jobs, counts = self.jobs, self.counts
        parts = {
            "stages": jobs["stage"] + jobs["arrive"] + jobs["bring"],
            "fetched": f"{self.fetched / MB:.0f} MB",
            "reads": jobs["read"],
            "promotions": f"{jobs['promote']}-{jobs['refuse']}-{jobs['rollback']}",
            "kills": f"{counts['kills']}-{counts['staging workers killed']}",
            "crash points": counts["crash points"],
            "faults": self.faults.total(),
            "rot": counts["rotted"],
            "repairs": counts["verify repaired"],
            "collections": f"{jobs['collect']} ({counts['collect versions']} versions)",
            "violations": len(self.violations),
            "rss": f"{self.rss.get('resident', 0) / MB:.0f} MB",
            "blobs": self.blobs,
        }
        clock = time.strftime("%H:%M:%S", time.gmtime(self.seconds))
        return f"{clock}  " + "  ".join(f"{name} {value}" for name, value in parts.items())

    @property
    def fetched(self) -> int:
        """Bytes that stagings brought."""
        return sum(self.counts[f"{job} fetched"] for job in ("stage", "arrive", "bring"))

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        path.write_text(json.dumps({**vars(self), "began": None}, indent=1) + "\n")

    def write_page(self, page: Path) -> None:
        """Put the figures into their place on a page."""
        before, rest = page.read_text().split(BEGIN)
        after = rest.split(END)[1]
        page.write_text(f"{before}{BEGIN}\n{self.table()}\n{END}{after}")

    def table(self) -> str:
        """The figures as Markdown."""
        jobs, counts = self.jobs, self.counts
        spoilt = ", ".join(f"{number:,} {kind}" for kind, number in sorted(self.faults.items()))
        by_kind: Counter[str] = Counter()
        for kind, number in self.errors.items():
            by_kind[kind.partition(": ")[2]] += number
        errors = ", ".join(f"{number:,} {kind}" for kind, number in sorted(by_kind.items()))
        rows = {
            "violations": f"{len(self.violations)}",
            "stagings and bringings that ended well": f"{jobs['stage'] + jobs['arrive'] + jobs['bring']:,}",
            "bytes fetched, reused": f"{self.fetched / MB:,.0f} MB, "
            f"{(counts['stage reused'] + counts['bring reused']) / MB:,.0f} MB",
            "promotions, refusals, rollbacks": f"{jobs['promote']:,}, {jobs['refuse']:,}, {jobs['rollback']:,}",
            "reads under a lease, with maps of all files": f"{jobs['read']:,}",
            "collections, versions taken": f"{jobs['collect']:,}, {counts['collect versions']:,}",
            "deliveries to the source": f"{counts['deliveries']:,}",
            "workers killed (SIGKILL)": f"{counts['kills']:,}",
            "worker processes of stagings killed or stopped": f"{counts['staging workers killed']:,}",
            "calls that crashed, or failed by EIO or ENOSPC": f"{counts['crash points']:,}",
            "answers of the source that were spoilt": f"{self.faults.total():,}: {spoilt}",
            "bytes flipped in blobs; damaged files found, repaired": f"{counts['rotted']:,}; "
            f"{counts['verify damaged']:,}, {counts['verify repaired']:,}",
            "inspections of everything": f"{counts['inspections']:,}",
            "errors that jobs ended with, all typed": errors or "none",
            "memory of the processes that lived all the time": ", ".join(
                f"{name} {size / MB:.0f} MB" for name, size in sorted(self.rss.items())
            ),
        }
        machine = f"{os.cpu_count()} cores ({platform.machine()}, Linux {platform.release().split('-')[0]}, "
        head = f"{self.seconds / 60:.0f} minutes on {machine}Python {platform.python_version()}), seed {self.seed}, "
        lines = [head + time.strftime("%Y-%m-%d", time.gmtime()) + ".", "", "| what | figure |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in rows.items()]
        return "\n".join([*lines, "", f"Again: `make soak HOURS={self.hours:g} SEED={self.seed}`"])


COUNTED = {"fetched", "reused", "versions", "damaged", "repaired"}
"""What jobs tell that adds up."""
