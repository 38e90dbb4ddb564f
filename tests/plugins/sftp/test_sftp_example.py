"""The example of CSV from partners, on rclone's server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugins.sftp.ssh import rclone_sftp
from tests.support.readmes import unlike

CONFIG = """\
Host partner
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/user
  UserKnownHostsFile {folder}/known_hosts
"""


@pytest.mark.timeout(300)
def test_csv_from_partners_is_refused_or_read(tmp_path: Path) -> None:
    partner, home = tmp_path / "partner", tmp_path / "home"
    partner.mkdir()
    (home / ".ssh").mkdir(parents=True)
    with rclone_sftp(tmp_path / "server", partner) as server:
        config = CONFIG.format(port=server.port, user=server.user, folder=server.folder)
        (home / ".ssh/config").write_text(config)
        assert unlike("csv_by_sftp", partner, HOME=str(home)) == []
