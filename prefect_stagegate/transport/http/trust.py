"""The trusted certificate authorities: the system's, and those of a PEM file.

libcurl takes one file. It would parse `CAINFO_BLOB` for each connection (6.6 ms), but parses a file in memory once.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from prefect_stagegate.errors import UsageError


def trusted_authorities(ca_file: str = "") -> str:
    """The path of a PEM file with the system's authorities and those of `ca_file`.

    `SSL_CERT_FILE` and `SSL_CERT_DIR` name other system authorities, as for OpenSSL.

    Raises:
        UsageError: `ca_file` can't be read, or holds no certificate.
    """
    import ssl  # late: no local source needs it

    paths = ssl.get_default_verify_paths()
    path = Path(ca_file).expanduser() if ca_file else None
    try:
        # By its time, so that a renewed file is read again.
        stamp = path.stat().st_mtime_ns if path else 0
        return _bundle(str(path or ""), stamp, paths.cafile or "", paths.capath or "")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it holds no certificate"
        raise UsageError(f"The CA file {ca_file} can't be used: {reason}", hint="Check `verify`.") from error


@lru_cache(maxsize=64)
def _bundle(ca_file: str, _stamp: int, system_file: str, system_folder: str) -> str:
    import ssl

    parts = []
    if ca_file:
        parts.append(Path(ca_file).read_bytes())
        if b"BEGIN" not in parts[0]:
            raise ValueError
        ssl.create_default_context(cadata=parts[0].decode())  # raises now what libcurl would at the first connection
    if system_file:
        parts.append(Path(system_file).read_bytes())
    elif system_folder:
        parts += [entry.read_bytes() for entry in Path(system_folder).iterdir() if entry.suffix in (".pem", ".crt")]
    # Never closed: libcurl opens it by its path under /proc.
    file = os.memfd_create("authorities", os.MFD_CLOEXEC)
    os.write(file, b"\n".join(parts))
    return f"/proc/self/fd/{file}"
