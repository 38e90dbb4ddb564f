"""An SFTP server whose packets are changed at random: its bytes or a typed error, in time and in memory."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fuzzing.campaign import Budget, require_clean, run_campaign
from fuzzing.staging import Opened, put_files, stage_case

from tests.plugins.sftp.packets import SftpAnswerer

pytestmark = [pytest.mark.system, pytest.mark.timeout(0), pytest.mark.usefixtures("soon")]


def test_sftp_keeps_its_promise(tmp_path: Path, scratch: Path) -> None:
    budget = Budget.of_environment()
    put_files(tmp_path / "served")
    with SftpAnswerer(tmp_path / "keys", tmp_path / "served") as answerer:
        opened = Opened(answerer.url, answerer.options)
        answerer.changes = False
        assert stage_case(opened, scratch / "cache", random.Random(0)) == "staged"
        answerer.changes = True

        def play(number: int, draw: random.Random) -> str:
            answerer.begin(f"{budget.seed}/{number}")
            return stage_case(opened, scratch / "cache", draw)

        require_clean(run_campaign("sftp", budget, play))
