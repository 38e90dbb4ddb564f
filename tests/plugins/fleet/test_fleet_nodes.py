"""A node's part: what it proves of a version on its disk, and when it moves its copy of a ref."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from prefect_stagegate.catalog import RefAction
from prefect_stagegate.errors import CacheError, NotReady, StagegateError
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.jobs.upkeep.verify import verify
from prefect_stagegate.model import Address
from prefect_stagegate.plugins.fleet.node import Proof, flip_ref, hold_version
from prefect_stagegate.workspace import Workspace
from tests.support.scenario import Scenario


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    scenario = Scenario(tmp_path, runbook="https://wiki.example.org/", gates={"pilot": {"require": ["runbook"]}})
    (scenario.nas / "more.csv").write_text("more")
    scenario.deliver("first")
    return scenario


def node(scenario: Scenario, name: str = "node-a") -> Workspace:
    workspace = scenario.node(cache=name)
    return replace(workspace, settings=replace(workspace.settings, node=name))


def address(scenario: Scenario) -> Address:
    return Address(scenario.dataset, scenario.head("latest"))


def view(scenario: Scenario) -> Path:
    path = node(scenario).cache.views.path(scenario.dataset, scenario.head("latest"))
    assert path
    return path


def overwrite(path: Path, data: bytes) -> None:
    """Change bytes under the cache's feet, as a disk does."""
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


@pytest.mark.parametrize(("proof", "hashed"), [(Proof.HASH, 9), (Proof.COUNT, 0)])
def test_node_reports_the_digest_of_what_it_counted(scenario: Scenario, proof: Proof, hashed: int) -> None:
    report = hold_version(node(scenario), address(scenario), proof=proof)

    assert (report.node, report.digest) == ("node-a", scenario.head("latest"))
    assert (report.files, report.bytes, report.fetched, report.hashed) == (2, 9, 9, hashed)
    assert node(scenario).cache.refs.names(scenario.dataset) == []


def test_flipped_byte_is_found_and_fetched_again(scenario: Scenario) -> None:
    hold_version(node(scenario), address(scenario))
    overwrite(view(scenario) / "more.csv", b"mOre")

    assert hold_version(node(scenario), address(scenario)).digest == scenario.head("latest")
    assert (view(scenario) / "more.csv").read_text() == "more"


def test_flipped_byte_whose_source_is_gone_fails_the_node(scenario: Scenario) -> None:
    hold_version(node(scenario), address(scenario))
    overwrite(view(scenario) / "more.csv", b"mOre")
    (scenario.nas / "more.csv").unlink()

    with pytest.raises(StagegateError, match=r"more\.csv"):
        hold_version(node(scenario), address(scenario))


def test_count_alone_finds_a_cut_file(scenario: Scenario) -> None:
    hold_version(node(scenario), address(scenario))
    overwrite(view(scenario) / "more.csv", b"mo")

    with pytest.raises(CacheError, match=r"more\.csv .* 2 bytes"):
        hold_version(node(scenario), address(scenario), proof=Proof.COUNT)


def test_file_that_the_manifest_lacks_fails_the_node(scenario: Scenario) -> None:
    hold_version(node(scenario), address(scenario))
    folder = view(scenario)
    folder.chmod(0o755)
    (folder / "extra.csv").write_text("extra")

    with pytest.raises(CacheError, match=r"none of its own: .*extra"):
        hold_version(node(scenario), address(scenario), proof=Proof.COUNT)


def test_ref_moves_once_and_again_without_harm(scenario: Scenario) -> None:
    hold_version(node(scenario), address(scenario))

    for _ in range(2):
        assert flip_ref(node(scenario), scenario.dataset, "latest", scenario.head("latest")).flipped
    assert node(scenario).cache.refs.get(scenario.dataset, "latest") == scenario.head("latest")


def test_ref_does_not_move_to_a_version_that_is_not_here(scenario: Scenario) -> None:
    with pytest.raises(NotReady, match="lacks"):
        flip_ref(node(scenario), scenario.dataset, "latest", scenario.head("latest"))
    assert node(scenario).cache.refs.get(scenario.dataset, "latest") is None


def test_ref_does_not_move_once_the_catalog_names_another(scenario: Scenario) -> None:
    old = address(scenario)
    hold_version(node(scenario), old)
    scenario.deliver("second")

    with pytest.raises(NotReady, match="by now"):
        flip_ref(node(scenario), scenario.dataset, "latest", old.digest)
    assert node(scenario).cache.refs.get(scenario.dataset, "latest") is None


def test_ref_does_not_move_to_a_version_that_rotted(scenario: Scenario) -> None:
    hold_version(node(scenario), address(scenario))
    overwrite(view(scenario) / "more.csv", b"mOre")
    verify(node(scenario), address(scenario))

    with pytest.raises(NotReady, match=r"more\.csv .* rotted"):
        flip_ref(node(scenario), scenario.dataset, "latest", scenario.head("latest"))
    assert node(scenario).cache.refs.get(scenario.dataset, "latest") is None


def test_ref_does_not_move_to_what_was_withdrawn(scenario: Scenario) -> None:
    withdrawn = Address(scenario.dataset, scenario.promote())
    hold_version(node(scenario), withdrawn)
    workspace = scenario.node()
    head = workspace.catalog.ref(scenario.dataset, "pilot")
    assert head is not None
    workspace.catalog.move_ref(
        scenario.dataset, "pilot", withdrawn.digest, head=head, action=RefAction.WITHDRAW, who=workspace.identity,
        reason="failed", withdrawn=withdrawn.digest, attestation=head.attestation,
    )  # fmt: skip

    with pytest.raises(NotReady, match="withdrawn"):
        flip_ref(node(scenario), scenario.dataset, "pilot", withdrawn.digest)
    assert node(scenario).cache.refs.get(scenario.dataset, "pilot") is None


def test_ref_does_not_move_to_what_was_rolled_back(scenario: Scenario) -> None:
    scenario.promote()
    scenario.deliver("second")
    scenario.promote()
    bad = address(scenario)
    hold_version(node(scenario), bad)
    rollback(scenario.node(), Address(scenario.dataset, "pilot"), reason="wrong")

    with pytest.raises(NotReady):
        flip_ref(node(scenario), scenario.dataset, "pilot", bad.digest)
    assert node(scenario).cache.refs.get(scenario.dataset, "pilot") is None
