"""`make soak HOURS=n`: exit 0 when nothing was violated, else 1, and all that was left is kept."""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import sys
import tempfile
from pathlib import Path

from soak.figures import Figures
from soak.plants import PLANTS
from soak.run import soak


def main() -> int:
    """Run it by the command line's words."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=0.5, help="how long; may be a fraction (default: 0.5)")
    parser.add_argument("--seed", type=int, help="of contents, weather, kills and choices (default: a new one)")
    parser.add_argument("--json", type=Path, help="where the figures go (default: figures.json beside the evidence)")
    parser.add_argument("--page", type=Path, help="a page with a marked place for the figures: docs/reliability.md")
    parser.add_argument("--plant", choices=PLANTS, default="", help="break something, to see that it is found")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    root = Path(tempfile.mkdtemp(prefix="soak-"))
    logging.getLogger("prefect_stagegate").addHandler(logging.NullHandler())  # what can't be repaired is judged here
    figures = Figures(seed, options.hours)
    print(f"seed {seed}, {options.hours * 60:g} minutes, in {root}", flush=True)
    soak(root, figures, plant=options.plant)
    return _report(figures, options, root)


def _report(figures: Figures, options: argparse.Namespace, root: Path) -> int:
    print(f"\n{figures.table()}\n")
    if options.json:
        figures.save(options.json)
    if options.page:
        figures.write_page(options.page)
    if figures.violations:
        figures.save(root / "figures.json")
        print(f"{len(figures.violations)} violations, seed {figures.seed}; the evidence is in {root}")
        return 1
    shutil.rmtree(root, onerror=_unlocked)
    print(f"no violation, seed {figures.seed}")
    return 0


def _unlocked(remove: object, path: str, _: object) -> None:
    """Remove what lies in a folder that nobody may write to."""
    Path(path).parent.chmod(0o700)
    remove(path)  # type: ignore[operator]


if __name__ == "__main__":
    sys.exit(main())
