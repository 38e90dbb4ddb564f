"""A catalog and a cache that an earlier build wrote are read, verified, judged and continued as they were."""

from __future__ import annotations

import json
import shlex
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.frozen import make

Run = Callable[..., str]
DOCUMENTS: dict[str, Any] = json.loads((make.HERE / "documents.json").read_text())
BY_CLOCK = {"status things", "nodes", "where things@production"}
"""Commands whose answers depend on when they run."""


@pytest.fixture
def frozen(tmp_path: Path, run_stagegate: Callable[..., subprocess.CompletedProcess[str]]) -> Run:
    with tarfile.open(make.HERE / "store.tar.xz") as archive:
        archive.extractall(tmp_path, filter="fully_trusted")

    def run(command: str, codes: tuple[int, ...] = (0,)) -> str:
        settings = {"STAGEGATE_NODE": "node-a", "STAGEGATE_IDENTITY": "ada"}
        result = run_stagegate(*shlex.split(command), env=settings)
        assert result.returncode in codes, result.stderr
        return result.stdout.replace(str(tmp_path), str(make.ROOT))

    return run


def same_keys(document: Any, other: Any) -> bool:
    """Whether two documents have the same keys, as far as both have entries."""
    if isinstance(document, dict) and isinstance(other, dict):
        return document.keys() == other.keys() and all(same_keys(document[key], other[key]) for key in document)
    return not isinstance(document, list) or all(map(same_keys, document, other))


@pytest.mark.parametrize("command", sorted(DOCUMENTS.keys() - BY_CLOCK))
def test_document_is_the_same(frozen: Run, command: str) -> None:
    assert json.loads(frozen(f"{command} --json")) == DOCUMENTS[command]


@pytest.mark.parametrize("command", sorted(BY_CLOCK))
def test_document_by_the_clock_keeps_its_keys(frozen: Run, command: str) -> None:
    # `status` ends with 1 or 4 from the day on which evidence ended: a check or a person is asked again.
    assert same_keys(json.loads(frozen(f"{command} --json", (0, 1, 4))), DOCUMENTS[command])


def test_evidence_is_bound_to_the_same_values(frozen: Run) -> None:
    planned = json.loads(frozen("check things@latest --gate pilot --plan --json"))
    reasons = {check["check"]: check["reason"] for check in planned}
    assert reasons["license"].startswith("revoked by ines")
    assert [name for name in make.ALIKE if reasons[name]] == ["license"]
    # Expired by now, and another environment's.
    assert [name for name in make.NOT_ALIKE if reasons[name].startswith("another")] in ([], ["parity_python"])


def test_signed_history_goes_on(frozen: Run, tmp_path: Path) -> None:
    key = (tmp_path / "key.pub").read_text().strip()
    assert "3 signed by a key given" in frozen(f"history things@production --verify --key {key}")
    frozen("rollback things@pilot --reason worse")
    assert "4 entries" in frozen("history things@pilot --verify")


def test_same_rows_are_the_same_version(frozen: Run, tmp_path: Path) -> None:
    frozen("verify")
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas/data.csv").write_text("day,price\n2026-03-01,1.5\n2026-03-02,2.5\n")
    (tmp_path / "again.yaml").write_text(f"stagegate: 1\ndataset: again\nsources: [{{url: {tmp_path}/nas}}]\n")
    frozen(f"stage {tmp_path}/again.yaml")
    digest = DOCUMENTS["path things@production"]["digest"]
    assert digest in frozen("ls again --json")
