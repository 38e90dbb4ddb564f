"""`oci://` as a source: logins, tokens that end, storage elsewhere, and manifests that nobody should believe."""

from __future__ import annotations

import hashlib
import io
import json
import re
import socket
import stat
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from prefect_stagegate.errors import (
    AccessDenied,
    ChecksumMismatch,
    MissingExtra,
    ObjectVanished,
    SourceError,
    SourceUnavailable,
    TransferFailed,
    UsageError,
)
from prefect_stagegate.model import SourceObject
from prefect_stagegate.plugins.exchange.oci import oci_source, registry_client, registry_login, tar_walk
from prefect_stagegate.plugins.exchange.oci.oci_options import OciSettings
from prefect_stagegate.plugins.exchange.oci.oci_reference import OciReference
from prefect_stagegate.plugins.exchange.oci.registry_client import RegistryClient
from prefect_stagegate.plugins.exchange.oci.registry_login import RegistryLogin, session_over
from prefect_stagegate.sources import Source, open_source
from prefect_stagegate.sources.terms import Terms
from prefect_stagegate.testing.sources import listed, read
from prefect_stagegate.transport.http import Client
from tests.plugins.exchange.registries import TITLE, SmallRegistry, basic, digest_of, small_registry, store_login
from tests.support.rawserver import raw_server, response
from tests.support.scenario import Scenario
from tests.support.webservers import PASSWORD, USER

REPOSITORY = "me/things"
LOGIN = {"username": USER, "password": PASSWORD}
FILES = {f"{number:02}.bin": bytes([number]) * 1000 for number in range(20)}


@pytest.fixture
def registry() -> Iterator[SmallRegistry]:
    with small_registry() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_stored_logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)


def opened(registry: SmallRegistry, path: str = ":v1", **options: Any) -> Source:
    return open_source(f"oci://{registry.host}/{REPOSITORY}{path}", options)


# ── references ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "url",
    ["oci://host", "oci://host/things", "oci://host/Things:v1", "oci://host/a/../b:v1", "oci://host/things@sha256:12"],
)
def test_url_without_an_artifact_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="names no artifact"):
        open_source(url)


def test_digest_names_an_artifact_for_ever(registry: SmallRegistry) -> None:
    first = registry.tag(REPOSITORY, "v1", {"a.bin": b"one"})
    registry.tag(REPOSITORY, "v1", {"a.bin": b"two"})
    source = opened(registry, f"@{first}")
    assert read(source, listed(source)["a.bin"]) == b"one"


def test_new_tag_of_known_bytes_reads_nothing(tmp_path: Path, registry: SmallRegistry) -> None:
    things = Scenario(tmp_path)
    registry.tag(REPOSITORY, "v1", FILES)
    registry.tag(REPOSITORY, "v2", {**FILES, "new.bin": b"new"})
    versions = [
        things.stage(sources=[{"url": f"oci://{registry.host}/{REPOSITORY}:{tag}"}]) for tag in ("v1", "v1", "v2")
    ]
    assert [version.bytes_fetched for version in versions] == [20_000, 0, 3]


# ── logins ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_token_that_ends_is_renewed_while_files_are_read(
    registry: SmallRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oci_source, "JUST_NOW", 0.0)
    registry.login, registry.uses = "token", 4
    registry.tag(REPOSITORY, "v1", FILES)
    source = opened(registry, **LOGIN)
    objects = listed(source)
    renewed = 0
    for key, source_object in objects.items():
        with suppress(SourceUnavailable):  # retryable: the token had ended, and is another one now
            assert read(source, source_object) == FILES[key]
            continue
        assert read(source, source_object) == FILES[key]
        renewed += 1
    assert renewed > 3


def test_reads_that_one_token_fails_renew_it_once(registry: SmallRegistry) -> None:
    registry.login = "token"
    registry.tag(REPOSITORY, "v1", FILES)
    source = opened(registry, **LOGIN)
    objects = list(listed(source).values())
    for token in registry.tokens:
        registry.tokens[token] = 0
    given = len(registry.tokens)

    def fails(source_object: SourceObject) -> bool:
        try:
            return read(source, source_object) != FILES[source_object.key]
        except SourceUnavailable:
            return True

    with ThreadPoolExecutor(20) as pool:
        assert any(pool.map(fails, objects))
    assert not any(map(fails, objects))
    assert len(registry.tokens) - given < 5


def test_blobs_that_a_new_token_can_t_read_are_denied(registry: SmallRegistry) -> None:
    registry.tag(REPOSITORY, "v1", FILES)
    source = opened(registry, **LOGIN)
    first = listed(source)["00.bin"]
    registry.login, registry.uses = "token", 0
    with pytest.raises(AccessDenied, match=f"denies access.*Tried with: '{USER}' of the options"):
        read(source, first)


@pytest.mark.parametrize("uses", [8, 1000])
def test_staging_outlives_its_tokens(
    tmp_path: Path, registry: SmallRegistry, monkeypatch: pytest.MonkeyPatch, uses: int
) -> None:
    registry.login, registry.uses = "token", uses
    registry.tag(REPOSITORY, "v1", FILES)
    monkeypatch.setenv("DOCKER_CONFIG", str(store_login(tmp_path / "docker", registry.host)))
    version = Scenario(tmp_path).stage(sources=[{"url": f"oci://{registry.host}/{REPOSITORY}:v1"}])
    assert version.files == len(FILES)


def test_storage_elsewhere_gets_no_login(registry: SmallRegistry) -> None:
    registry.login = "token"
    registry.elsewhere = f"http://localhost:{registry.host.rpartition(':')[2]}"
    registry.tag(REPOSITORY, "v1", FILES)
    source = opened(registry, **LOGIN)
    assert {key: read(source, source_object) for key, source_object in listed(source).items()} == FILES
    logins = {request.login for request in registry.seen if request.path.startswith("/elsewhere/")}
    assert logins == {""}


@pytest.mark.parametrize("challenge", ["Basic", "Bearer"])
def test_storage_that_asks_for_a_login_gets_none(registry: SmallRegistry, challenge: str) -> None:
    asked = []

    def serve(head: bytes, _: object) -> bytes:
        asked.append(head)
        return response(b"", "401 Unauthorized", {"WWW-Authenticate": f'{challenge} realm="{storage.url}/token"'})

    registry.login = "token"
    registry.tag(REPOSITORY, "v1", FILES)
    with raw_server(serve) as storage:
        registry.elsewhere = storage.url
        source = opened(registry, **LOGIN)
        objects = listed(source)
        with pytest.raises(AccessDenied, match=f"redirects to {storage.address}, which denies access"):
            read(source, objects["00.bin"])
    assert asked
    assert not [head for head in asked if b"authorization" in head.lower() or b"/token" in head]
    assert not [request.login for request in registry.seen if "/blobs/" in request.path and "Basic" in request.login]


def test_reads_before_the_first_login_are_not_denied(registry: SmallRegistry) -> None:
    registry.tag(REPOSITORY, "v1", FILES)
    reference = OciReference.parse(f"oci://{registry.host}/{REPOSITORY}:v1")
    client = RegistryClient(reference, LOGIN, Terms(), url="oci://")
    before = client.blob_request(digest_of(FILES["00.bin"]), 1000, None)
    registry.login = "basic"
    assert client.blob(digest_of(FILES["01.bin"]), 1000) == FILES["01.bin"]
    assert client.fetch_logged_in(before).body == FILES["00.bin"]


@pytest.mark.parametrize("realm", ["http://169.254.169.254/token", "http://[fe80::1]/token"])
def test_token_server_at_a_blocked_address_is_refused(registry: SmallRegistry, realm: str) -> None:
    registry.login, registry.realm = "token", realm
    with pytest.raises(SourceError, match="Refused to connect"):
        listed(opened(registry))


@pytest.mark.parametrize("realm", ["http://tokens.example.org/", "file:///etc/passwd", "tokens.example.org"])
def test_password_goes_to_no_token_server_without_tls(realm: str) -> None:
    settings = OciSettings(username=USER, password=PASSWORD)
    login = RegistryLogin("registry.example.org", settings, url="oci://registry.example.org/a:b", secure=True)
    with pytest.raises(SourceError, match="token server without TLS"):
        login.log_in("https://registry.example.org/v2/", f'Bearer realm="{realm}"', "")


def test_password_goes_to_no_token_server_of_another_host() -> None:
    """Only the registry's own host gets it, or one that whoever gave the password names."""
    settings = OciSettings(username=USER, password=PASSWORD, token_server="127.0.0.3")
    login = RegistryLogin("127.0.0.1", settings, url="oci://127.0.0.1/a:b", secure=True)
    with pytest.raises(SourceError, match=r"login sent to another host, 127\.0\.0\.2:443"):
        login.log_in("https://127.0.0.1/v2/", 'Bearer realm="https://127.0.0.2/token"', "")
    login.session = session_over(Client(), lambda: None)
    for host in ("127.0.0.1:1", "127.0.0.3:1"):
        with pytest.raises(SourceError, match=f"Connection refused by {host}"):
            login.log_in("https://127.0.0.1/v2/", f'Bearer realm="https://{host}/token"', "")


@pytest.mark.parametrize("name", ["127.0.0.1", "127.0.0.2"])
def test_stored_login_goes_to_no_server_on_another_port(
    registry: SmallRegistry, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor to one that the spec names: a spec has nobody's password."""
    with raw_server(response(b"{}")) as tokens:
        registry.login, registry.realm = "token", f"http://{name}:{tokens.port}/token"
        monkeypatch.setenv("DOCKER_CONFIG", str(store_login(tmp_path / "docker", registry.host)))
        with pytest.raises(SourceError, match="token server without TLS"):
            listed(opened(registry, token_server=name))
    assert tokens.requests == []


@pytest.mark.parametrize("realm", ["http://[x", "http://127.0.0.1:99999/token", "http:///token"])
def test_token_server_without_a_usable_address_is_refused(registry: SmallRegistry, realm: str) -> None:
    registry.login, registry.realm = "token", realm
    with pytest.raises(SourceError, match="token server whose host or port can't be used"):
        listed(opened(registry, **LOGIN))


@pytest.mark.parametrize("login", ["basic", "token"])
@pytest.mark.parametrize("other", ["Basic", "Bearer", "Negotiate"])
def test_first_known_of_several_ways_to_log_in_is_taken(registry: SmallRegistry, login: Any, other: str) -> None:
    """Gitea names its token server, and then another realm for passwords."""
    registry.login, registry.challenge = login, f', {other} realm="http://{registry.host}/elsewhere"'
    registry.tag(REPOSITORY, "v1", FILES)
    assert len(listed(opened(registry, **LOGIN))) == len(FILES)


def test_endless_challenge_is_read_in_part() -> None:
    challenge = {"WWW-Authenticate": "Bearer " + "a" * 50_000}
    with raw_server(lambda *_: response(b"", "401 Unauthorized", challenge)) as server:
        begun = time.process_time()
        with pytest.raises(SourceError, match="names no token server"):
            listed(open_source(f"oci://{server.address}/{REPOSITORY}:v1", LOGIN))
        assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    "answer", [b"[]", b"{", b'{"token": 5}', b'"token"', b"[" * 200_000, rb'{"token": "a\nb"}', rb'{"token": "\u00fc"}']
)
def test_token_server_that_answers_nonsense_is_named(registry: SmallRegistry, answer: bytes) -> None:
    with raw_server(lambda *_: response(answer)) as tokens:
        registry.login, registry.realm = "token", f"{tokens.url}/token"
        with pytest.raises(SourceError, match=r"^127.0.0.1:\d+ doesn't answer like a token server"):
            listed(opened(registry))


@pytest.mark.parametrize("login", ["basic", "token"])
def test_refusal_says_which_logins_were_looked_for(
    registry: SmallRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: Any
) -> None:
    registry.login = login
    monkeypatch.setenv("DOCKER_CONFIG", str(store_login(tmp_path / "docker", "other.example.org")))
    with pytest.raises(AccessDenied) as caught:
        listed(opened(registry))
    assert f"looked for {registry.host} in: {tmp_path}/docker/config.json" in caught.value.hint
    assert "oras login" in caught.value.hint


def test_given_token_that_is_refused_asks_for_no_other(registry: SmallRegistry) -> None:
    registry.login = "token"
    registry.tag(REPOSITORY, "v1", FILES)
    with pytest.raises(AccessDenied, match="denies access"):
        listed(opened(registry, token="of-somebody-else"))
    assert "/token" not in registry.sent("GET")


@pytest.mark.parametrize("login", ["basic", "token"])
@pytest.mark.parametrize("store", ["docker", "podman", "helper"])
def test_stored_logins_are_used(
    registry: SmallRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, login: Any
) -> None:
    registry.login = login
    registry.tag(REPOSITORY, "v1", {"a.bin": b"a"})
    folder = store_login(tmp_path / "logins", registry.host)
    if store == "helper":
        give = json.dumps({"Username": USER, "Secret": PASSWORD})
        _helper(tmp_path, monkeypatch, f"#!/bin/sh\necho '{give}'\n")
        (folder / "config.json").write_text(json.dumps({"credHelpers": {registry.host: "test"}}))
    if store == "podman":
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(folder / "config.json"))
    else:
        monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    assert list(listed(opened(registry))) == ["a.bin"]


def test_spec_has_no_stored_login_sent_without_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(store_login(tmp_path / "logins", "registry.example.org")))
    reference, terms = OciReference.parse("oci://registry.example.org/me/things:v1"), Terms()
    for plain, typed, kind in ((True, False, "none"), (True, True, "unknown"), (False, False, "unknown")):
        client = RegistryClient(reference, {"plain_http": plain}, terms, url="oci://registry.example.org", typed=typed)
        assert client.credential_life().kind == kind


def _helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    helper = tmp_path / "bin" / "docker-credential-test"
    helper.parent.mkdir()
    helper.write_text(script)
    helper.chmod(helper.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(helper.parent), prepend=":")


def test_helper_that_hangs_is_given_up(
    registry: SmallRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _helper(tmp_path, monkeypatch, "#!/bin/sh\nexec sleep 20\n")
    monkeypatch.setattr(registry_login, "HELPER_SECONDS", 0.3)
    folder = store_login(tmp_path / "logins", "other")
    (folder / "config.json").write_text(json.dumps({"credsStore": "test"}))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    begun = time.monotonic()
    with pytest.raises(UsageError, match=r"config\.json can't be used \(TimeoutError\)"):
        opened(registry)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "[" * 200_000,
        '{"auths": [1]}',
        '{"auths": {"HOST": "x"}}',
        '{"auths": {"HOST": {"auth": 5}}}',
        '{"auths": {"HOST": {"auth": "bWU6c2VjcmV0\\n"}}}',
    ],
)
def test_broken_store_of_logins_is_named(
    registry: SmallRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    folder = store_login(tmp_path / "logins", "other")
    (folder / "config.json").write_text(text.replace("HOST", registry.host))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    with pytest.raises(UsageError, match=r"stored logins in .*config\.json can't be used"):
        opened(registry)


def test_token_with_a_line_break_is_refused_without_showing_it(registry: SmallRegistry) -> None:
    with pytest.raises(UsageError, match="holds a control character") as caught:
        opened(registry, token="canary-of-a-token\n")
    assert "canary" not in str(caught.value)


def test_errors_hold_no_password(registry: SmallRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.login = "basic"
    folder = store_login(tmp_path / "logins", registry.host, password="canary-of-a-password")
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    registry.change = lambda _path, data: data
    with pytest.raises(AccessDenied) as caught:
        listed(opened(registry))
    assert "canary" not in str(caught.value)
    assert basic(password="canary-of-a-password") not in str(caught.value)


# ── what nobody should believe ──────────────────────────────────────────────────────────────────────────────────────


def layer(**changes: Any) -> dict[str, Any]:
    """A layer of a manifest, with changes."""
    whole = {"mediaType": "x/y", "digest": digest_of(b"a"), "size": 1, "annotations": {TITLE: "a.bin"}}
    return {**whole, **changes}


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (b"{", "none of an OCI artifact"),
        (b"[" * 100_000, "none of an OCI artifact"),
        (b"[]", "none of an OCI artifact"),
        ({}, "none of an OCI artifact"),
        ({"manifests": []}, "index of several artifacts"),
        ({"manifests": [layer()] * 2}, f"in place of the tag: @{digest_of(b'a')} or @sha256:"),
        ({"layers": [layer(digest="sha512:" + "a" * 128)]}, "names content by sha512; only sha256 is supported"),
        ({"layers": [layer(annotations={})]}, "Layer 1 of the artifact has no file's name"),
        ({"layers": [layer(annotations={TITLE: None})]}, "Layer 1 of the artifact has no file's name"),
        ({"layers": [layer(), layer()]}, "names 'a.bin' twice"),
        ({"layers": [layer(size=-1)]}, "none of an OCI artifact"),
        ({"layers": [layer(size=True)]}, "none of an OCI artifact"),
        ({"layers": [layer(size=1 << 63)]}, "none of an OCI artifact"),
        ({"layers": [layer(digest="sha256:../../etc")]}, "none of an OCI artifact"),
        ({"layers": [layer(annotations=[1])]}, "none of an OCI artifact"),
        ({"layers": []}, "nothing at this path"),
        ({"layers": [layer(mediaType="application/vnd.cncf.model.weight.v1.tar+gzip")]}, "compressed archive"),
    ],
)
def test_odd_manifest_is_refused(registry: SmallRegistry, manifest: Any, message: str) -> None:
    registry.store(REPOSITORY, "v1", manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode())
    with pytest.raises(SourceError, match=message):
        listed(opened(registry))


def test_archive_can_be_left_out(registry: SmallRegistry) -> None:
    archive = layer(mediaType="application/vnd.cncf.model.code.v1.tar+zstd", annotations={TITLE: "code.tar"})
    registry.store(REPOSITORY, "v1", json.dumps({"layers": [archive, layer()]}).encode())
    assert list(listed(opened(registry), lambda key: key != "code.tar")) == ["a.bin"]


@pytest.mark.parametrize("name", ["../a.bin", "/etc/a.bin", "a\n.bin", "a//b.bin", "./a.bin"])
def test_name_that_leaves_the_dataset_is_never_staged(tmp_path: Path, registry: SmallRegistry, name: str) -> None:
    registry.tag(REPOSITORY, "v1", {name: b"a", "sound.bin": b"b"})
    with pytest.raises(UsageError, match="can't be in a dataset"):
        Scenario(tmp_path).stage(sources=[{"url": f"oci://{registry.host}/{REPOSITORY}:v1"}])


def test_manifest_of_another_digest_is_refused(registry: SmallRegistry) -> None:
    digest = registry.tag(REPOSITORY, "v1", FILES)
    registry.change = lambda path, data: data.replace(b"00.bin", b"xx.bin") if "/manifests/" in path else data
    with pytest.raises(ChecksumMismatch, match="The registry's manifest has the digest"):
        listed(opened(registry, f"@{digest}"))


def test_other_bytes_of_a_layer_are_refused(tmp_path: Path, registry: SmallRegistry) -> None:
    registry.tag(REPOSITORY, "v1", FILES)
    registry.change = lambda path, data: data[::-1] + b"" if "/blobs/" in path and len(data) == 1000 else data
    registry.tag(REPOSITORY, "v1", {**FILES, "a.bin": b"ab" * 500})
    with pytest.raises(TransferFailed, match="the source says sha256"):
        Scenario(tmp_path).stage(sources=[{"url": f"oci://{registry.host}/{REPOSITORY}:v1"}])


ROWS = b"a.bin\x001\x00blake3:" + hashlib.sha256(b"").hexdigest().encode() + b"\n"


@pytest.mark.parametrize(
    ("rows", "layers", "message"),
    [
        (ROWS, [], "don't fit the version"),
        (ROWS, [layer(mediaType="application/vnd.cncf.model.dataset.v1.raw", size=2)], "don't fit the version"),
        (ROWS, [layer(mediaType="application/vnd.cncf.model.dataset.v1.tar")], "don't fit the version"),
        (
            ROWS,
            [layer(annotations={"io.stagegate.files": "9" * 30}, size=4000)],
            "don't fit the version",
        ),
        (
            ROWS,
            [
                layer(
                    mediaType="application/vnd.cncf.model.dataset.v1.tar", annotations={"io.stagegate.files": "9" * 19}
                )
            ],
            "don't fit the version",
        ),
        (
            ROWS + ROWS.replace(b"a.bin", b"b.bin"),
            [layer(mediaType="application/vnd.cncf.model.dataset.v1.raw")] * 2,
            "don't fit the version",
        ),
        (b"\xff\x00", [], "rows are none of a version"),
        (b"a.bin\n", [], "rows are none of a version"),
    ],
)
def test_rows_that_fit_no_layers_are_refused(
    registry: SmallRegistry, rows: bytes, layers: list[dict[str, Any]], message: str
) -> None:
    registry.blobs[digest_of(rows)] = rows
    document = layer(digest=digest_of(rows), size=len(rows), mediaType="application/vnd.cncf.model.doc.v1.raw")
    annotations = {"io.stagegate.version": digest_of(rows)}
    registry.store(REPOSITORY, "v1", json.dumps({"layers": [*layers, document], "annotations": annotations}).encode())
    with pytest.raises(SourceError, match=message):
        listed(opened(registry))


def test_very_many_layers_take_seconds(registry: SmallRegistry) -> None:
    registry.blobs[digest_of(ROWS)] = ROWS
    layers = [layer()] * 20_000 + [layer(digest=digest_of(ROWS), size=len(ROWS))]
    annotations = {"io.stagegate.version": digest_of(ROWS)}
    registry.store(REPOSITORY, "v1", json.dumps({"layers": layers, "annotations": annotations}).encode())
    begun = time.process_time()
    with pytest.raises(SourceError, match="don't fit the version"):
        listed(opened(registry))
    assert time.process_time() - begun < 5


def test_manifest_without_end_is_bounded(registry: SmallRegistry) -> None:
    registry.store(REPOSITORY, "v1", b'{"layers": []}' + b" " * (registry_login.LARGEST_ANSWER + 1))
    with pytest.raises(SourceError, match="more than the permitted 16,777,216 bytes"):
        listed(opened(registry))


def tar_layer(registry: SmallRegistry, data: bytes) -> dict[str, Any]:
    """A tar layer as modctl makes it, with these bytes."""
    registry.blobs[digest_of(data)] = data
    return layer(mediaType="application/vnd.cncf.model.dataset.v1.tar", digest=digest_of(data), size=len(data))


def tar_of(*files: str, form: int = tarfile.GNU_FORMAT, types: Mapping[str, bytes] = MappingProxyType({})) -> bytes:
    """A tar archive of files that hold their names, and of members of other types."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=form) as archive:
        for name in [*files, *types]:
            member = tarfile.TarInfo(name)
            member.type = types.get(name, tarfile.REGTYPE)
            member.linkname = "elsewhere"
            member.size = len(name.encode()) if name in files else 0
            archive.addfile(member, io.BytesIO(name.encode()))
    return written.getvalue()


NAMES = ("./a.bin", "folder/ü.bin", "long/" + "x" * 150 + "/b.bin", "empty/.keep")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_layer_of_another_tool_is_read_by_ranges(tmp_path: Path, registry: SmallRegistry, form: int) -> None:
    archive = tar_layer(registry, tar_of(*NAMES, form=form, types={"folder": tarfile.DIRTYPE}))
    registry.store(REPOSITORY, "v1", json.dumps({"layers": [archive, layer(annotations={TITLE: "z.bin"})]}).encode())
    registry.blobs[digest_of(b"a")] = b"a"
    version = Scenario(tmp_path).stage(sources=[{"url": f"oci://{registry.host}/{REPOSITORY}:v1"}])
    texts = {
        str(path.relative_to(version.path)): path.read_text() for path in version.path.rglob("*") if path.is_file()
    }
    assert texts == {name.removeprefix("./"): name for name in NAMES} | {"z.bin": "a"}


@pytest.mark.parametrize(("size", "count", "most"), [(3_000_000, 9, 1_400_000), (1000, 900, 1_400_000)])
def test_listing_of_a_tar_layer_reads_little_of_its_files(
    registry: SmallRegistry, size: int, count: int, most: int
) -> None:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for number in range(count):
            member = tarfile.TarInfo(f"{number}.bin")
            member.size = size
            archive.addfile(member, io.BytesIO(bytes(size)))
    layers = [tar_layer(registry, written.getvalue())]
    registry.store(REPOSITORY, "v1", json.dumps({"layers": layers}).encode())
    assert len(listed(opened(registry))) == count
    ranges = [re.findall(r"\d+", request.range) for request in registry.seen if request.range]
    assert sum(int(last) - int(first) + 1 for first, last in ranges) < most
    assert len(ranges) <= 10


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_tar_layer_s_links_and_devices_are_refused_by_name(registry: SmallRegistry, kind: bytes) -> None:
    archive = tar_layer(registry, tar_of("a.bin", types={"odd": kind}))
    registry.store(REPOSITORY, "v1", json.dumps({"layers": [archive]}).encode())
    with pytest.raises(SourceError, match="in a tar layer") as caught:
        listed(opened(registry))
    assert caught.value.object == "odd"
    assert list(listed(opened(registry), lambda key: key != "odd")) == ["a.bin"]


def _damaged(archive: bytes, at: int, by: bytes) -> bytes:
    return archive[:at] + by + archive[at + len(by) :]


def old_sparse_header() -> bytes:
    """A header of GNU's old form for sparse files, which says that another one follows."""
    member = tarfile.TarInfo("sparse")
    member.type = tarfile.GNUTYPE_SPARSE
    header = _damaged(_damaged(member.tobuf(tarfile.USTAR_FORMAT), 482, b"\1"), 148, b" " * 8)
    return _damaged(header, 148, b"%06o\0 " % sum(header))


ARCHIVE = tar_of("a.bin", "b.bin", "c.bin")


@pytest.mark.parametrize(
    "data",
    [
        b"no archive",
        bytes(1),
        ARCHIVE[:1300],
        _damaged(ARCHIVE, 1024, b"#" * 512),
        _damaged(ARCHIVE, 1024 + 148, b"0" * 7),
        tar_of("a.bin")[:1024] + b"#" * 512,
        _damaged(tar_of("x" * 200), 124, b"77777777777"),
        old_sparse_header(),
    ],
)
def test_damaged_tar_layer_is_refused(registry: SmallRegistry, data: bytes) -> None:
    registry.store(REPOSITORY, "v1", json.dumps({"layers": [tar_layer(registry, data)]}).encode())
    with pytest.raises(SourceError, match="can't be read as a tar archive"):
        listed(opened(registry))


def extended(kind: bytes, fields: Mapping[str, str]) -> bytes:
    """An extended header of a tar archive."""
    body = b"".join(f"{len(key) + len(text) + 9:06} {key}={text}\n".encode() for key, text in fields.items())
    member = tarfile.TarInfo("fields")
    member.type, member.size = kind, len(body)
    return member.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        (extended(tarfile.XHDTYPE, {"a": "x" * 4000}) * 3, "a header is longer than"),
        (extended(tarfile.XGLTYPE, {f"{number:04}": "" for number in range(600)}), "more extended fields than 500"),
    ],
)
def test_tar_layer_can_t_take_all_memory(
    registry: SmallRegistry, monkeypatch: pytest.MonkeyPatch, headers: bytes, message: str
) -> None:
    monkeypatch.setattr(tar_walk, "LONGEST_HEADER", 12_000)
    monkeypatch.setattr(tar_walk, "MOST_FIELDS", 500)
    registry.store(REPOSITORY, "v1", json.dumps({"layers": [tar_layer(registry, headers + ARCHIVE)]}).encode())
    with pytest.raises(SourceError, match=message):
        listed(opened(registry))


def test_headers_of_many_files_are_no_long_header(registry: SmallRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_walk, "LONGEST_HEADER", 12_000)
    archive = tar_of(*map(str, range(50)), form=tarfile.PAX_FORMAT)
    registry.store(REPOSITORY, "v1", json.dumps({"layers": [tar_layer(registry, archive)]}).encode())
    assert len(listed(opened(registry))) == 50


def test_files_of_an_artifact_are_bounded(registry: SmallRegistry) -> None:
    registry.tag(REPOSITORY, "v1", FILES)
    with pytest.raises(SourceError, match="more files than 10"):
        listed(open_source(f"oci://{registry.host}/{REPOSITORY}:v1", most=10))


def test_file_in_two_layers_is_refused(registry: SmallRegistry) -> None:
    layers = [tar_layer(registry, tar_of("a.bin")), layer()]
    registry.store(REPOSITORY, "v1", json.dumps({"layers": layers}).encode())
    with pytest.raises(SourceError, match=r"names 'a\.bin' twice"):
        listed(opened(registry))


def test_folders_of_a_tar_layer_are_bounded(registry: SmallRegistry) -> None:
    folders = dict.fromkeys(map(str, range(20)), tarfile.DIRTYPE)
    archive = tar_layer(registry, tar_of(types=folders))
    registry.store(REPOSITORY, "v1", json.dumps({"layers": [archive]}).encode())
    with pytest.raises(SourceError, match="more files and folders than 10"):
        listed(open_source(f"oci://{registry.host}/{REPOSITORY}:v1", most=10))


def test_silent_registry_is_given_up() -> None:
    def say_nothing(*_: Any) -> None:
        time.sleep(3)

    with raw_server(say_nothing) as server:
        begun = time.monotonic()
        with pytest.raises(SourceError, match="stopped answering"):
            listed(open_source(f"oci://{server.url.removeprefix('http://')}/me/things:v1", idle=0.5))
        assert time.monotonic() - begun < 3


def test_rows_that_trickle_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_client, "PAGE_SECONDS", 1.0)

    def trickle(_: bytes, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _byte in range(50):
            connection.sendall(b"x")
            time.sleep(0.1)

    with raw_server(trickle) as server:
        reference = OciReference.parse(f"oci://{server.address}/{REPOSITORY}:v1")
        begun = time.monotonic()
        with pytest.raises(SourceUnavailable):
            RegistryClient(reference, {}, Terms(), url="oci://").blob(digest_of(b""), 1000)
        assert time.monotonic() - begun < 4


def test_file_that_another_node_fetches_may_be_gone(registry: SmallRegistry) -> None:
    registry.tag(REPOSITORY, "v1", FILES)
    source_object = listed(opened(registry))["00.bin"]
    registry.manifests.clear()
    with pytest.raises(ObjectVanished):
        read(opened(registry), source_object)


def test_missing_library_is_named_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("prefect_stagegate.plugins.exchange.oci.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "oras.auth.token", None)
    with pytest.raises(MissingExtra, match=r"prefect-stagegate\[oci\]"):
        open_source("oci://localhost/me/things:v1")
