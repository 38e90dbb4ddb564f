"""`deployments/orchestrators/stagegate.cron` under Debian's cron, in a mount namespace of its own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from prefect_stagegate.testing.launching import launched
from tests.support.orchestrators import FILES, install_command
from tests.support.scenario import Scenario

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

TABLE = (FILES / "stagegate.cron").read_text()
# Cron reads its tables from fixed places, and mails by a program, which here keeps the mails.
CRON = """
set -e
mount --make-rprivate /
for place in /etc/cron.d /var/spool/cron /run; do mount -t tmpfs none $place; done
mkdir /var/spool/cron/crontabs
cp "$1/table" /etc/cron.d/stagegate
mount --bind /dev/null /etc/crontab
mount -t overlay overlay -o "lowerdir=$1/sbin:/usr/sbin" /usr/sbin
exec cron -f
"""
SENDMAIL = """#!/bin/sh
cat > "$(mktemp {folder}/mail-XXXXXX)"
"""


def jobs(folder: Path, data: Scenario, command: Path) -> str:
    """The deployment's table with the job of each hour each minute, for the datasets `good` and `bad`."""
    (job,) = re.findall(r"^17 \* (.* stagegate status nycflights)$", TABLE, flags=re.MULTILINE)
    settings = TABLE.partition("# minute")[0]
    for place, here in {
        "/opt/stagegate/bin": command.parent,
        "/var/cache/stagegate": data.on["cache"],
        "/srv/stagegate/catalog": data.on["catalog"],
    }.items():
        settings = settings.replace(place, str(here))
    job = job.replace("/etc/stagegate", str(folder)).replace("* * * stagegate ", "* * * root ")
    return settings + "".join(f"* * {job.replace('nycflights', name)}\n" for name in ("good", "bad"))


def test_cron_is_silent_until_a_gate_refuses(tmp_path: Path) -> None:
    data = Scenario(tmp_path, "good", gates={"pilot": {"require": ["cache_fit"]}})
    data.write("origin,delay\nJFK,4\n")
    data.spec_file("good.yaml")
    data.spec_file("bad.yaml", dataset="bad", gates={"pilot": {"require": ["runbook"]}})
    (tmp_path / "table").write_text(jobs(tmp_path, data, install_command(tmp_path / "bin")))
    (tmp_path / "sbin").mkdir()
    sendmail = tmp_path / "sbin/sendmail"
    sendmail.write_text(SENDMAIL.format(folder=tmp_path))
    sendmail.chmod(0o755)
    command = ["/usr/bin/unshare", "--mount", "sh", "-c", CRON, "cron", str(tmp_path)]
    mails: list[str] = []

    def is_mailed() -> bool:
        mails[:] = [path.read_text() for path in tmp_path.glob("mail-*")]
        return bool(mails) and bool(data.head("pilot"))

    with launched(command, tmp_path / "cron.log", is_mailed, timeout=150):
        (mail,) = mails
    assert "To: data-eng@example.org" in mail
    assert re.search(r"bad.*pilot", mail)
    assert "runbook" in mail
    assert "good" not in mail.partition("\n\n")[2]


def test_table_keeps_cron_s_syntax(tmp_path: Path) -> None:
    table = tmp_path / "table"
    # A table of one user has no column for it.
    table.write_text(re.sub(r"^([\d*]+ [\d*]+ \* \* \*) stagegate ", r"\1 ", TABLE, flags=re.MULTILINE))
    assert subprocess.run(["crontab", "-n", table], capture_output=True, check=False).returncode == 0
    assert "%" not in "".join(line for line in TABLE.splitlines() if not line.startswith("#"))
