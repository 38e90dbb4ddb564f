"""The process that decodes files of strangers: confined, without secrets, in bounded memory.

    ← {"sandbox": "Landlock 5"}                                              once it is confined
    → {"probes": [["image", {"mode": "RGB"}]], "files": [["a.png", 1234]]}   a batch: probes, paths with their bytes
    ← null                                                                   a line a file, once it is probed
    ← ["its mode is L, …", "Convert it …", false]                            its defect, in place of null

The first argument is the version's folder. It ends with its standard input, or with the thread that started it.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from prefect_stagegate.validations.files.facts import Defect, Facts, decoder, probe_copy
from prefect_stagegate.validations.worker.confinement import confine

MEMORY = 2 << 30
"""Bytes that one process may take for its data."""
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Probe the batches on standard input."""
    view = Path(sys.argv[1])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # It writes nothing, so the scratch folder is the null device.
    sandbox = confine(os.devnull, [str(view)])
    results = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what libraries print must not mix with the results
    print(json.dumps({"sandbox": sandbox}), file=results, flush=True)
    for line in sys.stdin:
        batch = json.loads(line)
        probes = [partial(decoder(name), **settings) for name, settings in batch["probes"]]
        for path, size in batch["files"]:
            print(json.dumps(_defect(view / path, size, probes)), file=results, flush=True)


def _defect(copy: Path, size: int, probes: Sequence[Callable[[Path], Facts]]) -> Defect | None:
    try:
        result = probe_copy(copy, size, probes)
    except MemoryError:
        problem = f"probing it takes more than {MEMORY >> 30} GiB of memory"
        return Defect(problem, "Deliver it in smaller files.", of_copy=True)
    return result if isinstance(result, Defect) else None


if __name__ == "__main__":
    main()
