"""What one staging of three local files enters of this package: `python -m tests.support.entered FOLDER`.

Writes files, functions and the deepest stack, as JSON. What only imports run is left out.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import threading
from pathlib import Path
from types import FrameType

import prefect_stagegate
from prefect_stagegate.cli import main
from prefect_stagegate.jobs import runner

PACKAGE = Path(prefect_stagegate.__file__).parent
ROOMS = (PACKAGE, *(room.resolve() for room in PACKAGE.iterdir() if room.is_symlink()))


@functools.cache
def room_file(name: str) -> str:
    """The file of a code object, by its real path; empty for a file of others."""
    path = Path(os.path.realpath(name))
    return str(path) if any(path.is_relative_to(room) for room in ROOMS) else ""


def enter(folder: Path) -> tuple[set[tuple[str, str]], int]:
    """Stage three files; returns the entered functions with their files, and the depth of the deepest stack."""
    (folder / "nas").mkdir()
    for number in range(3):
        (folder / f"nas/{number}.csv").write_text("a,b\n1,2\n")
    spec = folder / "things.yaml"
    spec.write_text(f"stagegate: 1\ndataset: things\nsources: [{{url: {folder}/nas}}]\n")
    entered: set[tuple[str, str]] = set()
    deepest = 0

    def note(frame: FrameType | None, event: str, _: object) -> None:
        nonlocal deepest
        if event != "call" or frame is None or not room_file(frame.f_code.co_filename):
            return
        code, depth = frame.f_code, 0
        while frame is not None:
            if room_file(frame.f_code.co_filename):
                if frame.f_code.co_name == "<module>":
                    return
                depth += 1
            frame = frame.f_back
        entered.add((room_file(code.co_filename), code.co_qualname))
        deepest = max(deepest, depth)

    # Profiled on a busy machine, a staging takes longer than the time after which it records its progress.
    runner.INTERVAL = 60.0
    places = ["--cache", str(folder / "cache"), "--catalog", str(folder / "catalog")]
    threading.setprofile(note)
    sys.setprofile(note)
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(sys.stderr):
        main(["stage", str(spec), *places])
    sys.setprofile(None)
    return entered, deepest


if __name__ == "__main__":
    functions, depth = enter(Path(sys.argv[1]))
    sys.stdout.write(
        json.dumps({"files": len({file for file, _ in functions}), "functions": len(functions), "depth": depth})
    )
