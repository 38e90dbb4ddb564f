"""Virtual environments for peers that can't share one with the project: awscli pins botocore, and so do others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PINNED = {
    "aws": ("awscli==1.46.3", "awscrt==0.38.1"),
    "msc": ("multi-storage-client[boto3]==1.3.1",),
}


def python_of(name: str, folder: Path) -> Path:
    """The interpreter of a peer's environment, which is built when it isn't there.

    Raises:
        RuntimeError: The packages can't be installed.
    """
    environment, uv = folder / name, Path(sys.executable).parent / "uv"
    python = environment / "bin/python"
    if not (environment / "installed").exists():
        _run([str(uv), "venv", "--quiet", "--clear", "--python", sys.executable, str(environment)], name)
        _run([str(uv), "pip", "install", "--quiet", "--python", str(python), *PINNED[name]], name)
        (environment / "installed").touch()
    return python


def _run(command: Sequence[str], name: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"Could not install {', '.join(PINNED[name])}: {last}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"Could not install {', '.join(PINNED[name])}: {error}") from error
