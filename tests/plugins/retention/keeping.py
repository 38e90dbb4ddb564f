"""A scenario whose policy has `retain`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect_stagegate.jobs.inspect import show
from prefect_stagegate.jobs.review.audit import verify_history
from prefect_stagegate.model import Address, Entry
from prefect_stagegate.plugins.retention.expire import VersionFate, expire
from prefect_stagegate.unreadable import UnreadableRecords
from tests.support.scenario import Scenario


class Keeping(Scenario):
    """A scenario with `retain` and one target."""

    def __init__(self, folder: Path, gates: Any = None, **retain: Any) -> None:
        folder.mkdir(exist_ok=True)
        keys: dict[str, Any] = {"retain": retain} if retain else {}
        super().__init__(folder, gates=gates or {"production": {"require": ["license"]}}, **keys)

    def version(self, number: int) -> str:
        """Stage a version, and give its digest."""
        return self.deliver(f"a,b\n{number},{number}\n").digest

    def release(self, number: int) -> str:
        """Stage and promote a version."""
        self.version(number)
        return self.promote()

    def expire(self, *, dry_run: bool = False) -> dict[str, VersionFate]:
        """What becomes of each version, by its digest."""
        unreadable = UnreadableRecords()
        fates = expire(self.node(), [self.dataset], unreadable, dry_run=dry_run, settling=0)
        assert not unreadable.all
        return {fate.digest: fate for fate in fates}

    def kept(self) -> dict[str, str]:
        """What keeps each version that stays, by a dry run."""
        return {digest: "; ".join(fate.kept_by) for digest, fate in self.expire(dry_run=True).items() if fate.kept_by}

    def entries(self, digest: str) -> list[Entry]:
        """The entries of a version, by its manifest."""
        return list(show(self.node(), Address(self.dataset, digest))[1].entries())

    @property
    def versions(self) -> set[str]:
        """The versions that have a manifest."""
        return self.in_folder("manifests")

    def in_folder(self, kind: str) -> set[str]:
        """The versions that have a record of a kind."""
        folder = self.folder / "catalog/datasets" / self.dataset / kind
        return {f"sha256:{path.stem}" for path in folder.glob("*.parquet")}

    def problems(self) -> list[str]:
        """What is wrong with the logs."""
        return [problem for chain in verify_history(self.node()) for problem in chain.problems]
