"""The container image that this process runs in, by its digest and never by its tag, which may move."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from prefect_stagegate.environment.difference import UNKNOWN, Difference, Weight

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
PODMAN = Path("run/.containerenv")
"""Where Podman tells a privileged container the name of its image; a reference by digest holds the digest."""


def capture_image(told: str = "", root: Path = Path("/")) -> str:
    """The image's digest, `sha256:<hex>`, or unknown.

    No container can see its own digest, so whoever starts it says it.

    Args:
        told: What the deployment said: the setting `STAGEGATE_IMAGE_DIGEST`.
        root: The root of the file system.
    """
    if told:
        return told
    try:
        lines = (root / PODMAN).read_text(errors="replace").splitlines()
    except OSError:
        return UNKNOWN
    named = next((line for line in lines if line.startswith("image=")), "")
    found = DIGEST.search(named.partition("@")[2])
    return found[0] if found else UNKNOWN


def compare_images(there: str, here: str) -> Iterator[Difference]:
    """Any two images may hold anything, so they are equal or they block."""
    if UNKNOWN in (there, here):
        why = "nobody told the digest of the image, and two tags prove nothing"
        fix = "Set STAGEGATE_IMAGE_DIGEST where the container is started, then check both environments again."
        yield Difference("image", "digest", there, here, Weight.UNKNOWN, why, fix)
    elif there != here:
        why = "another image may hold anything else"
        yield Difference("image", "digest", there, here, Weight.BLOCKING, why, f"Run the image {there} here too.")
