"""The first line of `stagegate check`: which version is judged, by which policy, and whether anything counts."""

from __future__ import annotations

from prefect_stagegate.model import LATEST
from prefect_stagegate.operations.address import ResolvedVersion
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.units import digest_text


def judged_line(workspace: Workspace, version: ResolvedVersion, gate: str) -> str:
    """One line for people, with the version's digest, the refs that name it, when it was staged, and its policy."""
    refs = workspace.catalog.refs(version.dataset)
    names = [name for name, entry in refs.items() if entry.digest == version.digest]
    latest = refs.get(LATEST)
    staged = latest.at if latest and latest.digest == version.digest else _staged_at(workspace, version)
    facts = [", ".join(names) or "no ref names it", *([f"staged {staged[:19]}Z"] if staged else [])]
    if latest and latest.digest != version.digest:
        facts.append(f"{LATEST} is another: {digest_text(latest.digest)}")
    about = f"{version.dataset}@{digest_text(version.digest)} ({'; '.join(facts)}) for {gate}"
    if version.is_trial:
        return f"TRIAL under your own spec: nothing is recorded, and nothing of it counts. It judges {about}"
    return f"Judging {about} by policy {digest_text(version.adopted)}"


def _staged_at(workspace: Workspace, version: ResolvedVersion) -> str:
    """When the version was staged last; empty when `latest` never named it."""
    moves = workspace.catalog.history(version.dataset, LATEST)
    return next((move.at for move in reversed(moves) if move.digest == version.digest), "")
