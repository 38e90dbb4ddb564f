"""Every command, task and reader takes a version by its abbreviated digest and by counting back from a ref."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from prefect_stagegate import open_dataset
from prefect_stagegate.cli import main
from prefect_stagegate.clock import now
from prefect_stagegate.errors import GateFailed, UnknownRef, UsageError
from prefect_stagegate.filesystem import StagegateFileSystem
from prefect_stagegate.jobs.environment import accepted_in
from prefect_stagegate.jobs.gating.approve import approve
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.promote import promote
from prefect_stagegate.jobs.gating.revoke import revoke
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.gating.waive import waive
from prefect_stagegate.jobs.inspect import history, revocations
from prefect_stagegate.jobs.review.attestations import verify_attestation
from prefect_stagegate.jobs.review.audit import verify_history
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address, Version
from prefect_stagegate.model.manifest import Seal
from prefect_stagegate.tasks import (
    check_readiness,
    promote_dataset,
    require_ready,
    stage_dataset,
    validate_dataset,
    verify_cache,
)
from prefect_stagegate.units import digest_text
from tests.support.scenario import INES, Scenario
from tests.support.versions import put_version

Run = Callable[..., subprocess.CompletedProcess[str]]
GATES = {
    "pilot": {"require": ["license", "owner"]},
    "production": {"require": ["license", {"approval": {"count": 1, "from": ["infra"]}}]},
}


class ThreeVersions(Scenario):
    """Three versions of `things`; pilot accepted each, and names the third."""

    def __init__(self, folder: Path) -> None:
        contract = {"files": [{"match": "*.csv", "probes": ["csv"]}]}
        super().__init__(folder, contract=contract, gates=GATES)
        self.first, self.second, self.third = (self._to_pilot(text) for text in ("one\n", "two\n", "three\n"))

    def _to_pilot(self, text: str) -> Version:
        version = self.deliver(text)
        self.promote("pilot")
        return version


@pytest.fixture
def versions(tmp_path: Path) -> ThreeVersions:
    """A place of the test's own, which it changes."""
    return ThreeVersions(tmp_path)


@pytest.fixture(scope="module")
def shared_place(tmp_path_factory: pytest.TempPathFactory) -> ThreeVersions:
    return ThreeVersions(tmp_path_factory.mktemp("place"))


@pytest.fixture
def read_place(shared_place: ThreeVersions, monkeypatch: pytest.MonkeyPatch) -> ThreeVersions:
    """A place that tests share and leave as it is; the settings name it."""
    for name, folder in shared_place.environment().items():
        monkeypatch.setenv(name, folder)
    return shared_place


def second(versions: ThreeVersions, form: str) -> str:
    """The address of the second version."""
    return f"things@{digest_text(versions.second.digest)}" if form == "digest" else f"things@{form}"


FORMS = pytest.mark.parametrize("form", ["digest", "pilot~1"])


@FORMS
def test_readers_take_any_way_to_name_a_version(read_place: ThreeVersions, run_stagegate: Run, form: str) -> None:
    name = second(read_place, form)
    assert run_stagegate("path", name, env=read_place.environment()).stdout.strip() == str(read_place.second.path)
    result = run_stagegate("exec", name, "--", "cat", "{}/data.csv", env=read_place.environment())
    assert (result.returncode, result.stdout) == (0, "two\n"), result.stderr
    with open_dataset(name) as dataset:
        assert dataset.digest == read_place.second.digest
    assert StagegateFileSystem().cat(f"stagegate://{name.replace(':', '-')}/data.csv") == b"two\n"


@FORMS
def test_commands_take_any_way_to_name_a_version(
    read_place: ThreeVersions, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    name = second(read_place, form)
    digest = read_place.second.digest
    words: tuple[str, ...]
    for words, says in (
        (("show", name), digest),
        (("diff", name, f"things@{digest}"), "The two are the same."),
        (("diff", f"things@{digest}", name), "The two are the same."),
        (("stage", name), digest),
        (("stage", name, "--dry-run"), "data.csv"),
        (("validate", name), digest_text(digest)),
        (("check", name, "--gate", "pilot"), digest),
        (("check", name, "--gate", "pilot", "--plan"), "license"),
        (("pin", name), digest),
        (("verify", name), "hashed"),
        (("pin", name, "--remove"), "removed"),
        (("doctor", name), "works"),
        (("verify-attestation", name, "--gate", "pilot"), digest),
    ):
        with suppress(SystemExit):
            main([*words])
        output = capsys.readouterr()
        assert (says in output.out, output.err) == (True, ""), (words, output)


@FORMS
def test_a_version_brought_by_its_name_moves_no_ref_of_the_node(read_place: ThreeVersions, form: str) -> None:
    before = read_place.node().cache.refs.of("things")
    assert stage(read_place.node(), Address.parse(second(read_place, form))).digest == read_place.second.digest
    assert read_place.node().cache.refs.of("things") == before


@FORMS
def test_people_answer_for_any_way_to_name_a_version(versions: ThreeVersions, form: str) -> None:
    address = Address.parse(second(versions, form))
    check(versions.node(), address, "production")
    assert approve(versions.node(INES), address, "production").approved
    assert check(versions.node(), address, "production").accepted
    assert promote(versions.node(), address, "production").digest == versions.second.digest
    with pytest.raises(UsageError, match="license did not fail"):
        waive(versions.node(INES), address, "pilot", "license", reason="agreed", until=now() + timedelta(days=1))
    revocation = revoke(versions.node(), address, "license", reason="was wrong")
    assert revocations(versions.node(), address) == [revocation]
    assert revocations(versions.node(), Address("things", versions.first.digest)) == []


@FORMS
def test_tasks_take_any_way_to_name_a_version(versions: ThreeVersions, form: str) -> None:
    name = second(versions, form)
    assert stage_dataset.fn(name, **versions.on).digest == versions.second.digest
    assert validate_dataset.fn(name, **versions.on).digest == versions.second.digest
    assert check_readiness.fn(name, "pilot", **versions.on).digest == versions.second.digest
    assert verify_cache.fn(name, **versions.on).versions == 1
    assert promote_dataset.fn(name, "pilot", **versions.on).digest == versions.second.digest


@pytest.mark.parametrize("to", ["digest", "pilot~2"])
def test_rollback_returns_to_any_way_to_name_a_version(versions: ThreeVersions, to: str) -> None:
    chosen = digest_text(versions.first.digest) if to == "digest" else to
    moved = rollback(versions.node(), Address("things", "pilot"), to=chosen, reason="worse")
    assert (moved.digest, moved.previous) == (versions.first.digest, versions.third.digest)


def test_rollback_to_a_version_the_target_never_named_is_refused(versions: ThreeVersions) -> None:
    check(versions.node(), Address("things", versions.second.digest), "production")
    approve(versions.node(INES), Address("things", versions.second.digest), "production")
    check(versions.node(), Address("things", versions.second.digest), "production")
    promote(versions.node(), Address("things", versions.second.digest), "production")
    with pytest.raises(UnknownRef, match="never named that version"):
        rollback(
            versions.node(), Address("things", "production"), to=digest_text(versions.first.digest), reason="worse"
        )


@FORMS
def test_a_version_is_no_target_and_has_no_log(read_place: ThreeVersions, form: str) -> None:
    address = Address.parse(second(read_place, form))
    with pytest.raises(UsageError, match="names no target"):
        rollback(read_place.node(), address, reason="worse")
    with pytest.raises(UsageError, match="names no target"):
        accepted_in(read_place.node(), address)
    with pytest.raises(UsageError, match="names no target"):
        verify_attestation(read_place.node(), str(address))
    for read in (history, verify_history):
        with pytest.raises(UsageError, match="Only a ref has a history, not a version"):
            read(read_place.node(), address)


def test_an_audit_of_a_ref_that_is_none_is_refused(read_place: ThreeVersions) -> None:
    with pytest.raises(UnknownRef, match=r"There is no ref `pilo` of things\. Did you mean `pilot`\?"):
        verify_history(read_place.node(), Address("things", "pilo"))


def test_mistyped_target_of_a_run_names_the_right_one(read_place: ThreeVersions) -> None:
    with pytest.raises(UnknownRef, match="There is no ref `pilo` of things") as refusal:
        require_ready.fn("things@pilo", **read_place.on)
    assert "Did you mean `pilot`?" in refusal.value.hint
    with pytest.raises(UnknownRef, match="There is no ref `prod` of things") as refusal:
        require_ready.fn("things@prod", **read_place.on)
    assert "Its policy has gates for: pilot, production" in refusal.value.hint
    with pytest.raises(GateFailed, match="No version of things was accepted for production"):
        require_ready.fn("things@production", **read_place.on)


def test_an_ambiguous_digest_moves_nothing(versions: ThreeVersions) -> None:
    twin = versions.second.digest[:-4] + ("0000" if versions.second.digest[-4:] != "0000" else "0001")
    put_version(versions.node().catalog, "things", Seal(twin, 0, 0), [], [])
    address = Address.parse(second(versions, "digest"))
    for job in (lambda: stage(versions.node(), address), lambda: promote(versions.node(), address, "pilot")):
        with pytest.raises(UnknownRef, match="ambiguous") as caught:
            job()
        assert twin in str(caught.value)
    head = versions.node().catalog.ref("things", "pilot")
    assert head
    assert head.digest == versions.third.digest


def test_addresses_need_no_catalog_unless_they_count_back(read_place: ThreeVersions, run_stagegate: Run) -> None:
    nowhere = read_place.environment() | {"STAGEGATE_CATALOG": os.devnull + "/nowhere"}
    name = second(read_place, "digest")
    assert run_stagegate("path", name, env=nowhere).stdout.strip() == str(read_place.second.path)
    result = run_stagegate("path", "things@pilot~1", env=nowhere)
    assert (result.returncode, result.stdout) == (2, "")
    assert "things@pilot~1 is found by the catalog's log" in result.stderr
