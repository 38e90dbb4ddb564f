"""SFTP servers."""

from prefect_stagegate.doors import Plugin, Source, options

SFTP = Source(
    "an SFTP source",
    options(value="port username", address="host", file="key_filename known_hosts", credential="password passphrase"),
    schemes=("sftp", "ssh"),
    opener=f"{__name__}.sftp_source:SftpSource",
    extra="sftp",
    is_stateless=True,
)
PLUGIN = Plugin(sources=(SFTP,))
