"""Expiring and erasing with a catalog in an object store."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefect_stagegate.errors import GateFailed, UnknownRef
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.retention.erase_on_node import erase_on_node
from prefect_stagegate.plugins.retention.erasure import glob_of, plan_erasure, record_erasure
from prefect_stagegate.plugins.retention.erasure_status import NodeStanding, erasure_status
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.unreadable import UnreadableRecords
from tests.plugins.retention.keeping import Keeping
from tests.support.versions import version_digests


@pytest.fixture
def keeping(tmp_path: Path, seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Keeping:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret)
    monkeypatch.setenv("AWS_ENDPOINT_URL", seaweedfs.endpoint_url)
    keeping = Keeping(tmp_path, newest=1)
    keeping.on["catalog"] = f"{seaweedfs.bucket('retention')}/catalog"
    return keeping


def test_expire_and_erase_in_an_object_store(keeping: Keeping) -> None:
    (keeping.nas / "ada.csv").write_text("name\nada\n")
    first, second, third = keeping.release(1), keeping.version(2), keeping.version(3)
    assert {digest for digest, fate in keeping.expire().items() if fate.is_gone} == {second}
    assert {*version_digests(keeping.node().catalog, "things")} == {first, third}
    with pytest.raises(UnknownRef, match=f"things@{second} expired on"):
        stage(keeping.node(cache="other"), Address("things", second))
    keeping.write("a,b\n1,1\n")
    assert stage(keeping.node(cache="other"), Address("things", "production")).digest == first
    planned = plan_erasure(keeping.node(), "things", "", glob_of(("ada.csv",), ()))
    record_erasure(keeping.node(), "things", *planned, "asked")
    assert erase_on_node(keeping.node(), "things")[-1].is_proved
    standings = {each.node: each.standing for each in erasure_status(keeping.node(), "things", UnreadableRecords())}
    assert standings == {keeping.node().settings.node: NodeStanding.PROVED, "other": NodeStanding.UNANSWERED}
    assert erase_on_node(keeping.node(cache="other"), "things")[-1].is_proved
    with pytest.raises(GateFailed, match=r"no longer whole: ada\.csv"):
        stage(keeping.node(cache="other"), Address("things", "production"))
    assert not keeping.problems()
