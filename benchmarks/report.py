"""How large the report of 10,000 files and 60 checks is, and how soon Chromium paints it.

python -m benchmarks.report [--rounds 21]

Each round opens the page in a new window of one browser, so that nothing of it is cached. Needs Debian's package
chromium.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from tests.plugins.pages.renderers import to_html
from tests.plugins.reports import large
from tests.support.browser import DESKTOP, PHONE, chromium, opened

SIZES = {"desktop": DESKTOP, "phone": PHONE}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    report = large()
    began = time.perf_counter()
    page = to_html(report)
    wrote = time.perf_counter() - began
    print(f"{len(page.encode()):,} bytes, written in {wrote:.2f} s; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        file = Path(folder) / "report.html"
        file.write_text(page, encoding="utf-8")
        for name, size in SIZES.items():
            paints = []
            for _ in range(options.rounds):
                with opened(browser, file.as_uri(), size=size) as shown:
                    paints.append(shown.first_paint())
            spread = f"{min(paints):.2f} to {max(paints):.2f}"
            print(f"{name}: first paint after {statistics.median(paints):.2f} s (median of {len(paints)}; {spread})")


if __name__ == "__main__":
    main()
