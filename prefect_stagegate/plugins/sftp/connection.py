"""SSH connections opened as OpenSSH would: with the user's keys, agent, known_hosts and ~/.ssh/config.

An unknown host key is refused, whatever the user's configuration says: a server that pretends to be another would
decide what becomes the data.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncssh
from asyncssh.public_key import get_default_public_key_algs

from prefect_stagegate.errors import AccessDenied, SourceError, SourceUnavailable, UsageError
from prefect_stagegate.sources.adapter import public_url
from prefect_stagegate.transport.http import Allowed, require_allowed
from prefect_stagegate.transport.http.response_check import connection_refused

Connection = asyncssh.SSHClientConnection

CONNECT_SECONDS = 10.0
"""Most seconds for opening the connection. The login may take the idle time."""
CIPHERS = "^aes128-gcm@openssh.com"
"""Preferred where the user's configuration names no ciphers: the fastest on hardware with AES."""
KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
"""OpenSSH's default files (ssh_config(5))."""
JUMPS = 8
"""Most jump hosts in a row; more means a loop in the configuration."""
PORT = 22
_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]*")
_USER = re.compile(r"[\w.][\w.@\\+$-]*")


@dataclass(frozen=True, slots=True)
class Login:
    """Host, user and credentials. Empty fields are left to the user's ~/.ssh/config."""

    url: str
    """The source's URL, for messages."""
    host: str
    port: int | None
    user: str
    password: str
    keys: tuple[str, ...]
    """Files of private keys. Without any, those of ~/.ssh and the agent are used."""
    passphrase: str
    known_hosts: str
    """A file that replaces those of OpenSSH."""

    @classmethod
    def of(cls, url: str, options: Mapping[str, Any]) -> Login:
        """Read a login from a URL and its storage options.

        Raises:
            UsageError: They can't be used.
        """
        parts, shown = urlsplit(url), public_url(url)
        if parts.password is not None:
            hint = "Name a Prefect block under `credentials:`, or set SSHPASS."
            raise UsageError(f"{shown} holds a password", hint=hint)
        host = str(options.get("host") or unquote(parts.hostname or ""))
        if not host:
            raise UsageError(f"{shown} names no host", hint="Write sftp://host/folder/.")
        user = str(options.get("username") or unquote(parts.username or ""))
        for kind, name, pattern in (("host", host, _HOST), ("user", user, _USER)):
            if name and not pattern.fullmatch(name):  # ~/.ssh/config may put it into a command
                hint = "Write sftp://user@host/folder/."
                raise UsageError(f"{name!r} is not a valid {kind} name", hint=hint, source=shown)
        keys = options.get("key_filename") or ()
        return cls(
            shown,
            host,
            _port(options.get("port") or parts.netloc.rpartition("@")[2].partition(":")[2], shown),
            user,
            str(options.get("password") or os.environ.get("SSHPASS", "")),
            (keys,) if isinstance(keys, str) else tuple(keys),
            str(options.get("passphrase") or ""),
            str(options.get("known_hosts") or ""),
        )

    @property
    def address(self) -> str:
        """`user@host:port`, without the parts that are empty."""
        user = f"{self.user}@" if self.user else ""
        return f"{user}{self.host}{f':{self.port}' if self.port else ''}"

    def behind(self, hop: str) -> Login:
        """The login for a jump host `[user@]host[:port]` of ProxyJump: with the same keys, and without the password."""
        user, _, place = hop.rpartition("@")
        host, _, port = place.partition(":")
        return Login(self.url, host, _port(port, self.url), user, "", self.keys, self.passphrase, self.known_hosts)


async def connect(
    login: Login, idle: float, allowed: Allowed, *, through: Connection | None = None, jumps: int = JUMPS
) -> Connection:
    """Open a connection, through the jump hosts that the configuration names under ProxyJump.

    `through` replaces the configured ProxyJump, and `jumps` more hosts may follow. The login may take `idle` seconds.

    Raises:
        AccessDenied: The server refuses the login.
        SourceUnavailable: It doesn't answer.
        SourceError: Its host key is unknown, or differs from the known one.
        UsageError: A file of the options can't be used.
    """
    if not jumps:
        raise UsageError("The hosts of ProxyJump form a loop", hint="Check ~/.ssh/config.", source=login.url)
    options = _options(login, idle, through)
    require_allowed(options.host, allowed)
    hops = options.tunnel.split(",") if isinstance(options.tunnel, str) else ()
    tunnel = through
    try:
        # Each jump host is reached through the one before it.
        for hop in hops:
            tunnel = await connect(login.behind(hop), idle, allowed, through=tunnel, jumps=jumps - 1)
        final = _options(login, idle, tunnel)
        connection = await asyncssh.connect(login.host, final.port, tunnel=tunnel or (), options=final, config=())
    except BaseException as error:
        if tunnel and tunnel is not through:
            tunnel.abort()
        if isinstance(error, asyncssh.Error | OSError):  # a TimeoutError is one
            raise explained(error, login, options) from error
        raise
    connection.set_tunnel(tunnel)  # closed with the connection
    return connection


def _options(login: Login, idle: float, tunnel: Connection | None) -> asyncssh.SSHClientConnectionOptions:
    given: dict[str, Any] = {
        "port": login.port,
        "username": login.user,
        "password": login.password,
        "passphrase": login.passphrase,
        "client_keys": [os.path.expanduser(key) for key in login.keys],  # noqa: PTH111 - text for asyncssh
        "tunnel": tunnel,
    }
    # What is left out, asyncssh takes from the user's configuration.
    given = {name: value for name, value in given.items() if value}
    given |= {"host": login.host, "connect_timeout": min(idle, CONNECT_SECONDS), "login_timeout": idle}
    try:
        # Once to read the user's configuration, and once more with what depends on it.
        configured = asyncssh.SSHClientConnectionOptions(**given, config=())
        # Never None, which `UserKnownHostsFile none` would give: asyncssh then accepts any host key.
        given["known_hosts"] = _known_hosts(login, configured.known_hosts)
        given |= _preferred(configured, given["known_hosts"])
        return asyncssh.SSHClientConnectionOptions(**given, config=())
    except (ValueError, OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        hint = "Check the options `key_filename`, `passphrase` and `known_hosts`, and ~/.ssh/config."
        raise UsageError(f"SSH can't be set up: {error}", hint=hint, source=login.url) from error


def _preferred(configured: asyncssh.SSHClientConnectionOptions, known_hosts: Any) -> dict[str, Any]:
    """Our preferred algorithms, where the user's configuration names none."""
    chosen: dict[str, Any] = {} if configured.config.get("Ciphers") else {"encryption_algs": CIPHERS}
    known, authorities = _known_keys(configured, known_hosts)
    if known and not authorities and not configured.config.get("HostKeyAlgorithms"):
        # The kinds of the known keys come first. The others follow, so that a server that has only keys of another kind
        # is refused for its host key, and not for the lack of a common algorithm.
        algorithms = [name for key in known for name in key.sig_algorithms]
        chosen["server_host_key_algs"] = [name.decode() for name in (*algorithms, *get_default_public_key_algs())]
    return chosen


def _known_keys(options: asyncssh.SSHClientConnectionOptions, known_hosts: Any) -> tuple[Any, Any]:
    """The known keys of a host, and the keys of its certificate authorities."""
    port = None if options.port == PORT else options.port
    keys, authorities, *_ = asyncssh.match_known_hosts(known_hosts, options.host_key_alias or options.host, "", port)
    return keys, authorities


def _known_hosts(login: Login, configured: Any) -> Any:
    """The files of known hosts that exist; without any, a function that knows no host."""
    if login.known_hosts:
        # Opened, so that a missing file is an error here and not an unknown host.
        with Path(login.known_hosts).expanduser().open("rb") as file:
            return [file.name]
    names = configured or KNOWN_HOSTS
    return [str(path) for name in names if (path := Path(name).expanduser()).is_file()] or _no_known_keys


def _no_known_keys(host: str, addr: str, port: int | None) -> tuple[list[Any], ...]:
    """No known keys for any host, in the form that asyncssh expects."""
    del host, addr, port
    return ([], [], [], [], [], [], [])


def explained(
    error: BaseException, login: Login, options: asyncssh.SSHClientConnectionOptions | None = None, key: str = ""
) -> SourceError:
    """The typed error for an exception of a connection."""
    subject = {"source": login.url, "object": key}
    if isinstance(error, SourceError):
        return error
    if isinstance(error, asyncssh.PermissionDenied) and options:
        message = f"Permission denied: {login.address} refused {_tried(login)}"
        return AccessDenied(message, hint=_entry(login), **subject)
    if options and isinstance(error, asyncssh.HostKeyNotVerifiable):
        return _untrusted(login, options, subject)
    if isinstance(error, asyncssh.KeyExchangeFailed | asyncssh.ProtocolNotSupported):
        return SourceError(f"No common SSH algorithm or protocol with {login.address}: {error}", **subject)
    if isinstance(error, ConnectionRefusedError):
        port = options.port if options else login.port or PORT
        return connection_refused(f"{login.host}:{port}", source=login.url, key=key)
    text = str(error) or ("no response in time" if isinstance(error, TimeoutError) else type(error).__name__)
    return SourceUnavailable(f"The server {login.address} failed: {text}", **subject)


def _untrusted(login: Login, options: asyncssh.SSHClientConnectionOptions, subject: dict[str, str]) -> SourceError:
    host, port = options.host_key_alias or options.host, options.port
    name = host if port == PORT else f"[{host}]:{port}"
    files = options.known_hosts if isinstance(options.known_hosts, list) else []
    if any(_known_keys(options, options.known_hosts)):
        return SourceError(
            f"The host key of {name} is not the one in {', '.join(files)}: the server was reinstalled, or is another",
            hint=f"Ask its owner. If the new key is right, remove the old one: ssh-keygen -R '{name}' -f {files[0]}",
            **subject,
        )
    target = login.known_hosts or "~/.ssh/known_hosts"
    scan = f"ssh-keyscan {'' if port == PORT else f'-p {port} '}{options.host}"
    return SourceError(
        f"The host key of {name} is not known: it is not in {', '.join(files) or target}",
        hint=f"Look at it by `{scan} | ssh-keygen -lf -`, compare it with what the server's owner says, and add it by "
        f"`{scan} >> {target}`.",
        **subject,
    )


def _tried(login: Login) -> str:
    """The credentials that were tried, without secrets."""
    keys = f"the key {', '.join(login.keys)}" if login.keys else "the keys of ~/.ssh and of the agent"
    return f"a password or {keys}" if login.password else keys


def _entry(login: Login) -> str:
    port = f"-p {login.port} " if login.port else ""
    user = f"{login.user}@" if login.user else ""
    return f"See what the server says: ssh -v {port}{user}{login.host}. Name a key by the option `key_filename`."


def _port(text: object, url: str) -> int | None:
    if not text:
        return None
    try:
        return int(str(text))
    except ValueError:
        raise UsageError(f"{text!r} is no port", source=url) from None
