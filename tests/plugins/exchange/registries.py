"""OCI registries on the loopback interface: Debian's docker-registry, and a small one that does what a test says.

with small_registry() as registry:
    registry.tag("me/things", "v1", {"a.bin": b"…"})
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from prefect_stagegate.testing.launching import launched
from prefect_stagegate.testing.servers import free_port
from tests.support.http_servers import Handler, http_server
from tests.support.webservers import PASSWORD, USER, accepts, certificates, command_path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
TITLE = "org.opencontainers.image.title"
_HASHED = "$2b$04$VGMY1ZmtTqVgSIo.GwXxQuJQAdk8eMRn2JcrCKdJETKJc1SxdVsdO"
"""`PASSWORD` by bcrypt, the only hash that the registry takes."""
_PLACE = re.compile(r"/v2/(.+?)/(blobs/uploads|blobs|manifests|referrers)/(.*)")


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def basic(user: str = USER, password: str = PASSWORD) -> str:
    """A login as Docker's configuration stores it."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def store_login(folder: Path, registry: str, user: str = USER, password: str = PASSWORD) -> Path:
    """Write Docker's configuration with a login, as `docker login` does; returns the folder for DOCKER_CONFIG."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"auths": {registry: {"auth": basic(user, password)}}}))
    return folder


def manifest_of(files: Mapping[str, bytes], **more: Any) -> bytes:
    """The manifest of an artifact as ORAS makes it: a layer for each file."""
    layers = [
        {
            "mediaType": "application/octet-stream",
            "digest": digest_of(data),
            "size": len(data),
            "annotations": {TITLE: path},
        }
        for path, data in files.items()
    ]
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2}
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers, **more}).encode()


@dataclass
class DebianRegistry:
    """Debian's docker-registry, which is CNCF Distribution 2.8: it knows no referrers."""

    host: str
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """By repository and tag, what `put` and `remove` made of it."""
    scopes: list[str] = field(default_factory=list)
    """What each token that was given permits, where a token server gives them."""

    def put(self, repository: str, tag: str, path: str, data: bytes) -> None:
        """Push an artifact with a file more, without the code under test."""
        files = self.files.setdefault(f"{repository}:{tag}", {})
        files[path] = data
        self._push(repository, tag, files)

    def remove(self, repository: str, tag: str, path: str) -> None:
        """Push an artifact without a file."""
        del self.files[f"{repository}:{tag}"][path]
        self._push(repository, tag, self.files[f"{repository}:{tag}"])

    def _push(self, repository: str, tag: str, files: Mapping[str, bytes]) -> None:
        base = f"http://{self.host}/v2/{repository}"
        for data in {b"{}", *files.values()}:
            place = self._send("POST", f"{base}/blobs/uploads/", b"").headers["Location"]
            self._send("PUT", f"{place}&digest={digest_of(data)}", data, "application/octet-stream")
        self._send("PUT", f"{base}/manifests/{tag}", manifest_of(files), MANIFEST)

    def _send(self, method: str, url: str, data: bytes, kind: str = "") -> Any:
        headers = {"Authorization": f"Basic {basic()}", **({"Content-Type": kind} if kind else {})}
        return urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=30)


@contextmanager
def token_registry(directory: Path, *, seconds: int = 60) -> Iterator[DebianRegistry]:
    """Run Debian's docker-registry over TLS with a token server, whose tokens last so many seconds.

    The certificate authority is `ca.pem` in the directory, for `localhost`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    certificates(directory)
    given: list[str] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    with http_server(partial(_TokenHandler, directory, seconds, given), "localhost", context) as url:
        token = {
            "realm": f"{url}/token",
            "service": "registry",
            "issuer": "test",
            "rootcertbundle": str(directory / "ca.pem"),
        }
        tls = {"certificate": str(directory / "server.pem"), "key": str(directory / "server.key")}
        with debian_registry(directory, auth={"token": token}, tls=tls) as registry:
            registry.host = registry.host.replace("127.0.0.1", "localhost")
            registry.scopes = given
            yield registry


class _TokenHandler(Handler):
    """Gives tokens as Distribution's specification says: a JWT with what it permits, signed by the server's key."""

    def __init__(self, folder: Path, seconds: int, given: list[str], *arguments: Any) -> None:
        self._folder, self._seconds, self._given = folder, seconds, given
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Give a token to who knows the password."""
        query = parse_qs(urlsplit(self.path).query)
        knows = self.headers.get("authorization") == f"Basic {basic()}"
        body = json.dumps({"token": self._token(query.get("scope", [""])[0])}).encode() if knows else b""
        self.respond(200 if knows else 401, body)

    def _token(self, scope: str) -> str:
        self._given.append(scope)
        now = int(time.time())
        kind, name, actions = scope.split(":") if scope else ("", "", "")
        access = [{"type": kind, "name": name, "actions": actions.split(",")}] if scope else []
        claims = {
            "iss": "test",
            "sub": USER,
            "aud": "registry",
            "nbf": now - 5,
            "iat": now,
            "jti": str(len(self._given)),
        }
        certificate = load_pem_x509_certificate((self._folder / "server.pem").read_bytes())
        chain = [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()]
        head = {"typ": "JWT", "alg": "ES256", "x5c": chain}
        signed = f"{_part(head)}.{_part({**claims, 'exp': now + self._seconds, 'access': access})}"
        key = load_pem_private_key((self._folder / "server.key").read_bytes(), None)
        assert isinstance(key, EllipticCurvePrivateKey)
        numbers = decode_dss_signature(key.sign(signed.encode(), ECDSA(SHA256())))
        signature = b"".join(number.to_bytes(32, "big") for number in numbers)
        return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@contextmanager
def debian_registry(
    directory: Path,
    *,
    password: bool = False,
    auth: Mapping[str, Any] | None = None,
    tls: Mapping[str, str] | None = None,
) -> Iterator[DebianRegistry]:
    """Run Debian's docker-registry for as long as the block runs.

    Raises:
        MissingExtra: It isn't installed.
        SourceUnavailable: It ended or did not answer in time.
    """
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    settings: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": {"addr": f"127.0.0.1:{port}", **({"tls": tls} if tls else {})},
        **({"auth": auth} if auth else {}),
    }
    if password:
        (directory / "users").write_text(f"{USER}:{_HASHED}\n")
        settings["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "users")}}
    (directory / "config.yml").write_text(json.dumps(settings))  # JSON is YAML
    command = [command_path("docker-registry", "docker-registry"), "serve", str(directory / "config.yml")]
    with launched(command, directory / "registry.log", lambda: accepts(port)):
        yield DebianRegistry(f"127.0.0.1:{port}")


class Seen(NamedTuple):
    """A request."""

    method: str
    path: str
    login: str
    range: str


@dataclass
class SmallRegistry:
    """The state of the registry."""

    host: str = ""
    login: Literal["", "basic", "token"] = ""
    """How it wants to be logged in to, as `USER`."""
    password: str = PASSWORD
    realm: str = ""
    """The token server that it names; empty for its own."""
    challenge: str = ""
    """Another way to log in, which it names after its own."""
    uses: int = 1000
    """Requests that a token is good for."""
    elsewhere: str = ""
    """The address that blobs are redirected to; empty where it gives them itself."""
    upload_at: str = ""
    """The address that uploads are led to; empty for its own."""
    pause: float = 0.0
    """Seconds after which it answers that it has a layer."""
    refers: bool = False
    """Whether it knows referrers."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    """By repository and digest or tag."""
    tokens: dict[str, int] = field(default_factory=dict)
    """The uses that are left, by token."""
    statuses: deque[int] = field(default_factory=deque)
    """The next requests are answered with them."""
    change: Callable[[str, bytes], bytes] = lambda _, data: data
    """What becomes of a body, by its path."""
    seen: list[Seen] = field(default_factory=list)

    def tag(self, repository: str, tag: str, files: Mapping[str, bytes], **more: Any) -> str:
        """Store an artifact; returns its digest."""
        self.blobs |= {digest_of(data): data for data in (b"{}", *files.values())}
        return self.store(repository, tag, manifest_of(files, **more))

    def store(self, repository: str, tag: str, manifest: bytes) -> str:
        """Store a manifest; returns its digest."""
        digest = digest_of(manifest)
        self.manifests |= {f"{repository}/{tag}": manifest, f"{repository}/{digest}": manifest}
        return digest

    def put(self, repository: str, tag: str, path: str, data: bytes) -> None:
        """Store an artifact with a file more."""
        self.tag(repository, tag, {**self._files(repository, tag), path: data})

    def remove(self, repository: str, tag: str, path: str) -> None:
        """Store an artifact without a file."""
        self.tag(repository, tag, {key: data for key, data in self._files(repository, tag).items() if key != path})

    def sent(self, method: str) -> list[str]:
        """The paths of the requests of a method."""
        return [request.path for request in self.seen if request.method == method]

    def _files(self, repository: str, tag: str) -> dict[str, bytes]:
        manifest = json.loads(self.manifests.get(f"{repository}/{tag}", b'{"layers": []}'))
        return {layer["annotations"][TITLE]: self.blobs[layer["digest"]] for layer in manifest["layers"]}


@contextmanager
def small_registry(**state: Any) -> Iterator[SmallRegistry]:
    """Run a registry for as long as the block runs."""
    registry = SmallRegistry(**state)
    with http_server(partial(_Handler, registry)) as url:
        registry.host = url.removeprefix("http://")
        yield registry


class _Handler(Handler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body leave together

    def __init__(self, registry: SmallRegistry, *arguments: Any) -> None:
        self.registry = registry
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Answer, after the login was looked at."""
        registry, body = self.registry, self._body()
        login, part = (self.headers.get(name, "") for name in ("authorization", "range"))
        registry.seen.append(Seen(self.command, self.path, login, part))
        address = urlsplit(self.path)
        place = _PLACE.fullmatch(address.path)
        if address.path == "/token":
            self._give_token(login)
        elif registry.statuses:
            self.respond(registry.statuses.popleft())
        elif address.path.startswith("/elsewhere/"):
            self._give(registry.blobs.get(address.path.rpartition("/")[2]))
        elif not self._is_let_in(login):
            self._ask_for_login()
        elif place:
            self._serve(place[1], place[2], place[3], parse_qs(address.query), body)
        else:
            self.respond(404)

    do_HEAD = do_POST = do_PUT = do_GET

    def _body(self) -> bytes:
        if self.headers.get("content-length") and self.headers.get("expect"):
            self.send_response_only(100)
            self.end_headers()
            self.wfile.flush()
        return self.read_body()

    def _serve(self, repository: str, kind: str, name: str, query: dict[str, list[str]], body: bytes) -> None:
        registry = self.registry
        if kind == "blobs/uploads" and self.command == "POST":
            self.respond(202, headers={"Location": f"{registry.upload_at}/v2/{repository}/blobs/uploads/1?state=x"})
        elif kind == "blobs/uploads":
            digest = query["digest"][0]
            if digest_of(body) != digest:
                self.respond(400, json.dumps({"errors": [{"code": "DIGEST_INVALID"}]}).encode())
                return
            registry.blobs[digest] = body
            time.sleep(registry.pause)
            self.respond(201)
        elif kind == "manifests" and self.command == "PUT":
            digest = registry.store(repository, name, body)
            subject = json.loads(body).get("subject")
            told = {"OCI-Subject": subject["digest"]} if subject and registry.refers else {}
            self.respond(201, headers={"Docker-Content-Digest": digest, **told})
        elif kind == "manifests":
            self._give(registry.manifests.get(f"{repository}/{name}"))
        elif kind == "blobs" and registry.elsewhere and self.command == "GET":
            self.respond(307, headers={"Location": f"{registry.elsewhere}/elsewhere/{name}"})
        elif kind == "blobs":
            self._give(registry.blobs.get(name))
        else:
            self.respond(404)

    def _is_let_in(self, login: str) -> bool:
        if self.registry.login == "token":
            token = login.removeprefix("Bearer ")
            self.registry.tokens[token] = left = self.registry.tokens.get(token, 0) - 1
            return left >= 0
        return not self.registry.login or self._knows_password(login)

    def _knows_password(self, login: str) -> bool:
        return login == f"Basic {basic(password=self.registry.password)}"

    def _ask_for_login(self) -> None:
        realm = self.registry.realm or f"http://{self.registry.host}/token"
        challenge = f'Bearer realm="{realm}",service="small",scope="repository:me/things:pull,push"'
        own = 'Basic realm="small"' if self.registry.login == "basic" else challenge
        self.respond(401, headers={"WWW-Authenticate": own + self.registry.challenge})

    def _give_token(self, login: str) -> None:
        if not self._knows_password(login):
            self.respond(401)
            return
        token = f"token-{len(self.registry.tokens)}"
        self.registry.tokens[token] = self.registry.uses
        self.respond(200, json.dumps({"token": token}).encode())

    def _give(self, data: bytes | None) -> None:
        if data is None:
            self.respond(404, json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN"}]}).encode())
            return
        headers = {"Docker-Content-Digest": digest_of(data)}
        data = self.registry.change(self.path, data)
        if part := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", "")):
            first, last = int(part[1]), int(part[2])
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            self.respond(206, data[first : last + 1], headers)
        else:
            self.respond(200, data, headers)
