"""SSH connections that are opened as OpenSSH's users expect: their keys, agent, known_hosts and ~/.ssh/config.

A host key that isn't known is refused, whatever the user's configuration says: who answers under a name decides what
becomes the data. Errors are those of errors.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from prefect_stagegate.errors import AccessDenied, SourceError, SourceUnavailable, UsageError
from prefect_stagegate.http import Allowed, require_allowed
from prefect_stagegate.objectstore import refused
from prefect_stagegate.sources.base import public_url
from prefect_stagegate.sources.extras import missing_extra

try:
    import asyncssh
    from asyncssh.public_key import get_default_public_key_algs
except ImportError as error:
    raise missing_extra("sftp") from error

Connection = asyncssh.SSHClientConnection

CONNECT_SECONDS = 10.0
"""How long a server may take to accept a connection; it has the idle time to let us in."""
CIPHERS = "^aes128-gcm@openssh.com"
"""What is preferred where the user's configuration says nothing: the fastest here, with hardware that has AES."""
KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
"""Where OpenSSH looks when its configuration names no other file (ssh_config(5))."""
JUMPS = 8
"""Hosts that lie before another at most; more is a circle in the configuration."""
PORT = 22
_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]*")
_USER = re.compile(r"[\w.][\w.@\\+$-]*")


@dataclass(frozen=True, slots=True)
class Login:
    """Whom to ask, and as whom. What is empty is left to the user's ~/.ssh/config."""

    url: str
    """The source's, for people."""
    host: str
    port: int | None
    user: str
    password: str
    keys: tuple[str, ...]
    """Files of private keys; without any, those of ~/.ssh and the agent's."""
    passphrase: str
    known_hosts: str
    """A file in place of those that OpenSSH reads."""

    @classmethod
    def of(cls, url: str, options: Mapping[str, Any]) -> Login:
        """What a URL and its storage options say.

        Raises:
            UsageError: They can't be used.
        """
        parts, told = urlsplit(url), public_url(url)
        if parts.password is not None:
            hint = "Name a Prefect block under `credentials:`, or set SSHPASS."
            raise UsageError(f"{told} holds a password", hint=hint)
        host = str(options.get("host") or unquote(parts.hostname or ""))
        if not host:
            raise UsageError(f"{told} names no host", hint="Write sftp://host/folder/.")
        user = str(options.get("username") or unquote(parts.username or ""))
        for kind, name, pattern in (("host", host, _HOST), ("user", user, _USER)):
            if name and not pattern.fullmatch(name):  # ~/.ssh/config may put it into a command
                raise UsageError(f"{name!r} is no {kind}'s name", hint="Write sftp://user@host/folder/.", source=told)
        keys = options.get("key_filename") or ()
        return cls(
            told,
            host,
            _port(options.get("port") or parts.netloc.rpartition("@")[2].partition(":")[2], told),
            user,
            str(options.get("password") or os.environ.get("SSHPASS", "")),
            (keys,) if isinstance(keys, str) else tuple(keys),
            str(options.get("passphrase") or ""),
            str(options.get("known_hosts") or ""),
        )

    @property
    def address(self) -> str:
        """`user@host:port`, with as much of it as is given."""
        user = f"{self.user}@" if self.user else ""
        return f"{user}{self.host}{f':{self.port}' if self.port else ''}"

    def behind(self, hop: str) -> Login:
        """A host on the way, from `[user@]host[:port]` of ProxyJump: it has the user's own keys, and no password."""
        user, _, place = hop.rpartition("@")
        host, _, port = place.partition(":")
        return Login(self.url, host, _port(port, self.url), user, "", self.keys, self.passphrase, self.known_hosts)


async def connect(
    login: Login, idle: float, allowed: Allowed, *, through: Connection | None = None, jumps: int = JUMPS
) -> Connection:
    """Open a connection, over the hosts of ProxyJump where the configuration names some.

    Args:
        login: Whom to ask.
        idle: Seconds that the server may take to let us in.
        allowed: Hosts that may be asked wherever they are.
        through: What to go through in place of ProxyJump.
        jumps: How many hosts may still lie before it.

    Raises:
        AccessDenied: The server lets us not in.
        SourceUnavailable: It doesn't answer.
        SourceError: Its host key is not known, or not the known one.
        UsageError: A file of the options can't be used.
    """
    if not jumps:
        raise UsageError("ProxyJump leads in a circle", hint="See ~/.ssh/config.", source=login.url)
    options = _options(login, idle, through)
    require_allowed(options.host, allowed)
    hops = options.tunnel.split(",") if isinstance(options.tunnel, str) else ()
    tunnel = through
    try:
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
    connection.set_tunnel(tunnel)
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
    given = {name: value for name, value in given.items() if value}
    given |= {"host": login.host, "connect_timeout": min(idle, CONNECT_SECONDS), "login_timeout": idle}
    try:
        found = asyncssh.SSHClientConnectionOptions(**given, config=())
        # Never None, which would believe any key: that is what `UserKnownHostsFile none` makes of it.
        given["known_hosts"] = _known_hosts(login, found.known_hosts)
        given |= _preferred(found, given["known_hosts"])
        return asyncssh.SSHClientConnectionOptions(**given, config=())
    except (ValueError, OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        hint = "Check the options `key_filename`, `passphrase` and `known_hosts`, and ~/.ssh/config."
        raise UsageError(f"SSH can't be set up: {error}", hint=hint, source=login.url) from error


def _preferred(found: asyncssh.SSHClientConnectionOptions, known_hosts: Any) -> dict[str, Any]:
    """The algorithms that come first, where the user's configuration says nothing of them."""
    chosen: dict[str, Any] = {} if found.config.get("Ciphers") else {"encryption_algs": CIPHERS}
    known, authorities = _known_keys(found, known_hosts)
    if known and not authorities and not found.config.get("HostKeyAlgorithms"):
        # The others follow, so that a server with keys of another kind only is told to have other keys.
        algorithms = [name for key in known for name in key.sig_algorithms]
        chosen["server_host_key_algs"] = [name.decode() for name in (*algorithms, *get_default_public_key_algs())]
    return chosen


def _known_keys(options: asyncssh.SSHClientConnectionOptions, known_hosts: Any) -> tuple[Any, Any]:
    """The keys that are known for a host by its name, and those of its authorities."""
    port = None if options.port == PORT else options.port
    found = asyncssh.match_known_hosts(known_hosts, options.host_key_alias or options.host, "", port)
    return found[0], found[1]


def _known_hosts(login: Login, configured: Any) -> Any:
    """The files to look into, or empty bytes: no host at all."""
    if login.known_hosts:
        with Path(login.known_hosts).expanduser().open("rb") as file:
            return [file.name]
    named = configured or KNOWN_HOSTS
    return [str(path) for name in named if (path := Path(name).expanduser()).is_file()] or _nobody


def _nobody(host: str, addr: str, port: int | None) -> tuple[list[Any], ...]:
    """The keys of a host when no file knows any."""
    del host, addr, port
    return ([], [], [], [], [], [], [])


def explained(
    error: BaseException, login: Login, options: asyncssh.SSHClientConnectionOptions | None = None, key: str = ""
) -> SourceError:
    """The typed error for what a connection met."""
    where = {"source": login.url, "object": key}
    if isinstance(error, SourceError):
        return error
    if isinstance(error, asyncssh.PermissionDenied) and options:
        return AccessDenied(f"{login.address} lets nobody in by {_tried(login)}", hint=_entry(login), **where)
    if options and isinstance(error, asyncssh.HostKeyNotVerifiable):
        return _untrusted(login, options, where)
    if isinstance(error, asyncssh.KeyExchangeFailed | asyncssh.ProtocolNotSupported):
        return SourceError(f"{login.address} and we have no way to speak in common: {error}", **where)
    if isinstance(error, ConnectionRefusedError):
        port = options.port if options else login.port or PORT
        return refused(f"{login.host}:{port}", source=login.url, key=key)
    told = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
    return SourceUnavailable(f"The server {login.address} failed: {told}", **where)


def _untrusted(login: Login, options: asyncssh.SSHClientConnectionOptions, where: dict[str, str]) -> SourceError:
    host, port = options.host_key_alias or options.host, options.port
    name = host if port == PORT else f"[{host}]:{port}"
    files = options.known_hosts if isinstance(options.known_hosts, list) else []
    if any(_known_keys(options, options.known_hosts)):
        return SourceError(
            f"The host key of {name} is not the one in {', '.join(files)}: the server is new, or another",
            hint=f"Ask its owner. If it is right, remove the old key: ssh-keygen -R '{name}' -f {files[0]}",
            **where,
        )
    target = login.known_hosts or "~/.ssh/known_hosts"
    scan = f"ssh-keyscan {'' if port == PORT else f'-p {port} '}{options.host}"
    return SourceError(
        f"The host key of {name} is not known: it is not in {', '.join(files) or target}",
        hint=f"Look at it by `{scan} | ssh-keygen -lf -`, compare it with what the server's owner says, and add it by "
        f"`{scan} >> {target}`.",
        **where,
    )


def _tried(login: Login) -> str:
    """What we came with, without any secret."""
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
