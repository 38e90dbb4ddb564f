"""Take the pictures of the pages from a real run: `make pictures`. Needs Chromium, `apt-get install chromium`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

PICTURES = Path(__file__).parents[1] / "docs/pictures"
WIDTH, HEIGHT = 1200, 900


def main() -> None:
    """Run the demo, and draw its report of the refused delivery as the first screen of a browser shows it."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
        folder = Path(made)
        stagegate = str(Path(sys.executable).with_name("stagegate"))
        subprocess.run([stagegate, "demo", "--folder", str(folder / "demo")], check=True)
        browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        places = [f"--user-data-dir={folder / 'profile'}", f"--screenshot={PICTURES / 'report.png'}"]
        page = (folder / "demo" / "report.html").as_uri()
        subprocess.run([*browser, *places, f"--window-size={WIDTH},{HEIGHT}", page], check=True)


if __name__ == "__main__":
    main()
