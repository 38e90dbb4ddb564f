"""`docs/how-to/train.md` from top to bottom, on a node that has nothing: our loaders, and readers that others wrote."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import litdata
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import streaming

from prefect_stagegate.jobs.staging.stage import stage
from tests.plugins.torch.arriving import go_to_node
from tests.support.scenario import Scenario
from tests.support.transcript import BLOCK

PAGE = (Path(__file__).parents[3] / "docs/how-to/train.md").read_text()
ROWS = 10


def row(number: int) -> dict[str, int]:
    return {"day": number}


def write_scans(folder: Path) -> None:
    """Write what the page reads."""
    for name in ("scans", "shards", "tables"):
        (folder / name).mkdir(parents=True)
    with tarfile.open(folder / "shards/0.tar", "w") as tar:
        for number in range(ROWS):
            scan = np.full((2, 2), number, dtype=np.float32)
            np.save(folder / f"scans/{number}.npy", scan)
            buffer = io.BytesIO()
            np.save(buffer, scan)
            member = tarfile.TarInfo(f"{number}.npy")
            member.size = buffer.tell()
            tar.addfile(member, io.BytesIO(buffer.getvalue()))
    pq.write_table(pa.table({"day": list(range(ROWS))}), folder / "tables/0.parquet")
    with streaming.MDSWriter(out=str(folder / "mds"), columns={"day": "int"}) as writer:
        for number in range(ROWS):
            writer.write(row(number))
    litdata.optimize(
        row, list(range(ROWS)), str(folder / "litdata"), num_workers=1, chunk_bytes="64MB", start_method="fork"
    )


@pytest.mark.timeout(500)
def test_page_works_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    scenario = Scenario(tmp_path, "scans", gates={"production": {"require": ["nonempty"]}})
    write_scans(scenario.nas)
    scenario.stage()
    scenario.promote()
    go_to_node(tmp_path, monkeypatch, "new")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    blocks = [text for kind, text in BLOCK.findall(PAGE) if kind == "python"]
    assert len(blocks) == 5
    for text in blocks:
        if "wait=False" not in text:
            stage(scenario.node(cache="new"), "scans@production")
        capsys.readouterr()
        exec(compile(text, "train.md", "exec"), names)
        printed = capsys.readouterr().out.split("\n")
        if "ShardDataset" in text:
            assert len(printed) == 2 * ROWS + 1
        elif "StatefulDataLoader" in text:
            assert "torch.Size([2, 2, 2])" in printed  # the rest of ten, after a batch of eight
        elif "load_dataset" in text:
            assert printed[-2] == f"{ROWS} {ROWS} {ROWS}"
        elif "litdata" in text:
            assert printed[-2] == f"{ROWS} {ROWS}"
        else:
            assert printed[:2] == [f"torch.Size([{ROWS}, 2, 2])"] * 2
