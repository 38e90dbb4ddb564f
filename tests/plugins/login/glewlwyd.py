"""Glewlwyd, a real OpenID provider from Debian, on SQLite: set up by its own API."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from prefect_stagegate.testing.launching import launched
from prefect_stagegate.testing.servers import free_port
from tests.plugins.login.login_server import send
from tests.plugins.login.lying_provider import CLIENT, SECRET
from tests.support.keys import write_key
from tests.support.webservers import accepts

USER, PASSWORD = "ines", "correct horse battery"
WEBAPP = Path("/usr/share/glewlwyd/webapp")
TABLES = Path("/usr/share/doc/glewlwyd/database/init.sqlite3.sql.gz")
_PROPERTY = {"read": True, "write": True, "profile-read": True, "profile-write": False}
_CONFIG = """
port={port}
bind_address="127.0.0.1"
external_url="{url}"
login_url="login.html"
api_prefix="api"
static_files_path="{folder}/webapp/"
static_files_mime_types = (
  {{ extension = ".html", mime_type = "text/html" }},
  {{ extension = ".css", mime_type = "text/css" }},
  {{ extension = ".js", mime_type = "application/javascript" }},
  {{ extension = ".json", mime_type = "application/json" }}
)
log_mode="console"
log_level="WARNING"
cookie_domain="127.0.0.1"
cookie_secure=0
admin_scope="g_admin"
profile_scope="g_profile"
user_module_path="/usr/lib/glewlwyd/user"
user_middleware_module_path="/usr/lib/glewlwyd/user_middleware"
client_module_path="/usr/lib/glewlwyd/client"
user_auth_scheme_module_path="/usr/lib/glewlwyd/scheme"
plugin_module_path="/usr/lib/glewlwyd/plugin"
hash_algorithm="SHA512"
database = {{ type = "sqlite3"; path = "{folder}/database"; }};
"""


class Glewlwyd:
    """A running server, and one browser's session at it."""

    def __init__(self, url: str) -> None:
        self.url, self.issuer, self._cookie = url, f"{url}/api/oidc", ""

    def call(self, method: str, path: str, content: Any = None) -> bytes:
        """Call its API; gives the body of its response."""
        headers = {"Content-Type": "application/json"} | ({"Cookie": self._cookie} if self._cookie else {})
        body = None if content is None else json.dumps(content).encode()
        response = send(method, f"{self.url}/api{path}", headers, body)
        assert response.status == 200, (method, path, response.status, response.body)
        self._cookie = response.headers.get("set-cookie", self._cookie).partition(";")[0]
        return response.body

    def log_in(self, authorization_url: str) -> str:
        """Log in as its page does, and give the address to which the browser goes back."""
        self._cookie = ""
        assert "/login.html?" in send("GET", authorization_url, {}).headers["location"]
        self.call("POST", "/auth/", {"username": USER, "password": PASSWORD})
        self.call("PUT", f"/auth/grant/{CLIENT}", {"scope": "openid email"})
        return send("GET", f"{authorization_url}&g_continue", {"Cookie": self._cookie}).headers["location"]

    def set_groups(self, *groups: str) -> None:
        """Put the user into other groups, as an administrator."""
        self._cookie = ""
        self.call("POST", "/auth/", {"username": "admin", "password": "password"})
        self.call("PUT", f"/user/{USER}", json.loads(self.call("GET", f"/user/{USER}")) | {"groups": list(groups)})


@contextmanager
def glewlwyd(folder: Path, redirect_uri: str) -> Iterator[Glewlwyd]:
    """Run the server, with one user in two groups, and one client."""
    port = free_port()
    server = Glewlwyd(f"http://127.0.0.1:{port}")
    # Of the package's `config.json`, which its pages read, Debian makes a folder.
    shutil.copytree(WEBAPP, folder / "webapp", ignore=shutil.ignore_patterns("config.json"))
    shutil.copy(WEBAPP.parent / "templates/config.json", folder / "webapp")
    with sqlite3.connect(folder / "database") as database:
        database.executescript(gzip.decompress(TABLES.read_bytes()).decode())
    database.close()
    (folder / "conf").write_text(_CONFIG.format(port=port, url=server.url, folder=folder))
    command = shutil.which("glewlwyd")
    assert command
    with launched([command, f"--config-file={folder}/conf"], folder / "log", lambda: accepts(port)):
        server.call("POST", "/auth/", {"username": "admin", "password": "password"})
        key = write_key(folder / "key", ec.generate_private_key(ec.SECP256R1()))
        server.call("POST", "/mod/plugin", _plugin(server.issuer, key))
        users = json.loads(server.call("GET", "/mod/user/database"))
        users["parameters"]["data-format"] |= {
            "verified": {"multiple": False, **_PROPERTY},
            "groups": {"multiple": True, **_PROPERTY},
        }
        server.call("PUT", "/mod/user/database", users)
        server.call("PUT", "/mod/user/database/reset")
        for scope, method, path in (("email", "POST", "/scope"), ("openid", "PUT", "/scope/openid")):
            content = {"name": scope, "display_name": scope, "password_required": True, "scheme": {}}
            server.call(method, path, content)
        server.call(
            "POST",
            "/user",
            {
                "username": USER,
                "password": PASSWORD,
                "name": "Ines",
                "email": "ines@example.org",
                "verified": "yes",
                "groups": ["approvers", "data"],
                "enabled": True,
                "scope": ["openid", "email"],
            },
        )
        server.call(
            "POST",
            "/client",
            {
                "client_id": CLIENT,
                "client_secret": SECRET,
                "confidential": True,
                "enabled": True,
                "redirect_uri": [redirect_uri],
                "authorization_type": ["code"],
                "token_endpoint_auth_method": ["client_secret_basic"],
            },
        )
        yield server


def _plugin(issuer: str, key: Path) -> dict[str, Any]:
    verified = {"boolean-value-true": "yes", "boolean-value-false": "no", "mandatory": True}
    parameters = {
        "iss": issuer,
        "jwt-type": "ecdsa",
        "jwt-key-size": "256",
        "key": key.read_text(),
        "cert": key.with_suffix(".pub").read_text(),
        "access-token-duration": 3600,
        "refresh-token-duration": 3600,
        "code-duration": 60,
        "auth-type-code-enabled": True,
        "subject-type": "public",
        "allowed-scope": ["openid", "email"],
        "jwks-show": True,
        "pkce-allowed": True,
        "pkce-required": True,
        "oauth-as-iss-id": True,
        "email-claim": "mandatory",
        "claims": [
            {"name": "email_verified", "user-property": "verified", "type": "boolean", **verified},
            {"name": "groups", "user-property": "groups", "type": "string", "mandatory": True},
        ],
        "session-management-allowed": True,
        "session-cookie-name": "GLEWLWYD2_OIDC_SID",
        "session-cookie-expiration": 3600,
    }
    return {"module": "oidc", "name": "oidc", "display_name": "OpenID Connect", "parameters": parameters}
