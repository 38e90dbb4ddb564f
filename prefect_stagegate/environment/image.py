"""The container image of this process, by its digest: its tag may move."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from prefect_stagegate.environment.difference import UNKNOWN, EnvironmentDifference, Weight

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
PODMAN = Path("run/.containerenv")
"""Where Podman writes the image's reference for a privileged container; a reference may hold the digest."""


def capture_image(declared: str = "", root: Path = Path("/")) -> str:
    """The image's digest, `sha256:<hex>`, or unknown.

    A container can't see its own digest, so whoever starts it declares it by STAGEGATE_IMAGE_DIGEST.
    """
    if declared:
        return declared
    try:
        lines = (root / PODMAN).read_text(errors="replace").splitlines()
    except OSError:
        return UNKNOWN
    reference = next((line for line in lines if line.startswith("image=")), "")
    # Only a reference by digest has an @.
    match = DIGEST.search(reference.partition("@")[2])
    return match[0] if match else UNKNOWN


def compare_images(there: str, here: str) -> Iterator[EnvironmentDifference]:
    """Yield a block when the images differ, since another image may hold anything."""
    if UNKNOWN in (there, here):
        why = "the digest of the image is not set, and equal tags prove nothing"
        fix = "Set STAGEGATE_IMAGE_DIGEST where the container is started, then check both environments again."
        yield EnvironmentDifference("image", "digest", there, here, Weight.UNKNOWN, why, fix)
    elif there != here:
        why = "another image may hold other software"
        fix = f"Run the image {there} here too."
        yield EnvironmentDifference("image", "digest", there, here, Weight.BLOCKING, why, fix)
