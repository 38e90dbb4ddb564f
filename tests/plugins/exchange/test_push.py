"""`stagegate push`: what lies in the registry, what is sent again, and what other tools and nodes make of it."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from prefect_stagegate.catalog.gate_records import SIGNATURES, newest_attestation
from prefect_stagegate.errors import (
    AccessDenied,
    CacheError,
    Cancelled,
    CorruptRecord,
    SourceError,
    TransferFailed,
    UsageError,
)
from prefect_stagegate.gate.records.attest import statement_digest
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.model import Address, Version
from prefect_stagegate.model.canonical import canonical
from prefect_stagegate.plugins.exchange.oci import registry_login, shards
from prefect_stagegate.plugins.exchange.publishing import layer_bodies
from prefect_stagegate.plugins.exchange.publishing import push as pushing
from prefect_stagegate.plugins.exchange.publishing.push import Pushed, push
from tests.plugins.exchange.registries import (
    SmallRegistry,
    debian_registry,
    digest_of,
    small_registry,
    store_login,
    token_registry,
)
from tests.support.rawserver import raw_server, response
from tests.support.scenario import Scenario
from tests.support.webservers import PASSWORD, USER, command_path

FILES = {
    "a.csv": b"a,b\n1,2\n",
    "empty": b"",
    "folder/block.bin": bytes(512),
    "folder/ü é & #.bin": b"u" * 700,
    "long/" + "/".join(["segment" * 20] * 3) + "/x.bin": b"x" * 1000,
    "same.csv": b"a,b\n1,2\n",
}
GATES = {"pilot": {"require": ["nonempty"]}, "production": {"require": ["approval"]}}
TAG = "me/things:v1"
SCHEMA = Path(__file__).parent / "modelpack-config-schema.json"
"""ModelPack's own, of its repository modelpack/model-spec (Apache-2.0)."""


@pytest.fixture(autouse=True)
def _no_stored_logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def registry() -> Iterator[SmallRegistry]:
    with small_registry() as running:
        yield running


@pytest.fixture
def things(tmp_path: Path) -> Scenario:
    """A node with a version of odd files."""
    scenario = Scenario(tmp_path, gates=GATES)
    for path, data in FILES.items():
        (scenario.nas / path).parent.mkdir(parents=True, exist_ok=True)
        (scenario.nas / path).write_bytes(data)
    scenario.stage()
    return scenario


def pushed(things: Scenario, host: str, **options: Any) -> Pushed:
    return push(things.node(), Address("things"), f"oci://{host}/{TAG}", **options)


def staged_elsewhere(folder: Path, host: str, path: str = "") -> Version:
    """Stage what was pushed on a node with a catalog of its own."""
    folder.mkdir()
    return Scenario(folder, "copies").stage(sources=[{"url": f"oci://{host}/{TAG}{path}"}])


def sent_blobs(registry: SmallRegistry) -> list[str]:
    return [path for path in registry.sent("PUT") if "/blobs/" in path]


# ── there and back ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("by", ["file", "shard"])
def test_pushed_version_is_the_same_version_elsewhere(
    tmp_path: Path, things: Scenario, registry: SmallRegistry, by: Any
) -> None:
    result = pushed(things, registry.host, by=by)
    version = staged_elsewhere(tmp_path / "elsewhere", registry.host)
    assert version.digest == result.digest == things.head("latest")
    assert {path: (version.path / path).read_bytes() for path in FILES} == FILES
    assert (result.files, result.layers) == (6, 6 if by == "file" else 1)


def test_many_shards_are_read_by_ranges(
    tmp_path: Path, things: Scenario, registry: SmallRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 1000)
    monkeypatch.setattr(shards, "LARGE_FILE", 1000)
    result = pushed(things, registry.host, by="shard")
    assert result.layers == 3
    version = staged_elsewhere(tmp_path / "elsewhere", registry.host, "/folder")
    assert version.files == 2
    blobs = [request for request in registry.seen if "/blobs/" in request.path and request.method == "GET"]
    assert {request.path.rpartition("/")[2] for request in blobs if not request.range} == {result.digest}
    assert len(blobs) == 3


def test_wrong_bytes_in_a_tar_layer_are_refused(tmp_path: Path, things: Scenario, registry: SmallRegistry) -> None:
    pushed(things, registry.host, by="shard")
    registry.change = lambda _, data: data.replace(b"u" * 700, b"v" * 700)
    with pytest.raises(TransferFailed, match="the source says blake3"):
        staged_elsewhere(tmp_path / "elsewhere", registry.host)


def test_other_node_fetches_after_the_tag_moved(tmp_path: Path, things: Scenario, registry: SmallRegistry) -> None:
    pushed(things, registry.host, by="shard")
    version = staged_elsewhere(tmp_path / "elsewhere", registry.host)
    registry.tag("me/things", "v1", {"other.bin": b"other"})
    node = Scenario(tmp_path / "elsewhere", "copies").node(cache="second")
    fetched = stage(node, Address("copies", version.digest))
    assert {path: (fetched.path / path).read_bytes() for path in FILES} == FILES


def test_tar_layers_are_tar_archives(things: Scenario, registry: SmallRegistry) -> None:
    pushed(things, registry.host, by="shard")
    manifest = json.loads(registry.manifests["me/things/v1"])
    (layer,) = [layer for layer in manifest["layers"] if layer["mediaType"].endswith(".tar")]
    with tarfile.open(fileobj=io.BytesIO(registry.blobs[layer["digest"]])) as archive:
        members = {member.name: archive.extractfile(member) for member in archive}
        assert {name: file.read() for name, file in members.items() if file} == FILES


def test_manifest_is_modelpack_s(things: Scenario, registry: SmallRegistry) -> None:
    result = pushed(things, registry.host)
    manifest = json.loads(registry.manifests["me/things/v1"])
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert manifest["annotations"] == {"io.stagegate.dataset": "things", "io.stagegate.version": result.digest}
    *files, rows = manifest["layers"]
    assert {layer["mediaType"] for layer in files} == {"application/vnd.cncf.model.dataset.v1.raw"}
    assert [layer["annotations"]["org.cncf.model.filepath"] for layer in files] == sorted(FILES)
    assert (rows["digest"], rows["mediaType"]) == (result.digest, "application/vnd.cncf.model.doc.v1.raw")
    assert manifest["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    config = json.loads(registry.blobs[manifest["config"]["digest"]])
    jsonschema.validate(config, json.loads(SCHEMA.read_text()))
    assert config == {
        "descriptor": {"name": "things", "version": result.digest, "licenses": ["CC0-1.0"]},
        "config": {},
        "modelfs": {"type": "layers", "diffIds": [layer["digest"] for layer in manifest["layers"]]},
    }


def test_rows_have_a_name_of_their_own(tmp_path: Path, registry: SmallRegistry) -> None:
    things = Scenario(tmp_path)
    (things.nas / "stagegate.rows").mkdir()
    (things.nas / "stagegate.rows" / "a").write_text("a")
    things.stage()
    pushed(things, registry.host)
    names = [layer["annotations"]["org.cncf.model.filepath"] for layer in _layers(registry)]
    assert names == ["stagegate.rows/a", "stagegate.rows_"]


def _layers(registry: SmallRegistry) -> list[dict[str, Any]]:
    layers: list[dict[str, Any]] = json.loads(registry.manifests["me/things/v1"])["layers"]
    return layers


# ── again, and in part ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("by", ["file", "shard"])
def test_second_push_sends_and_reads_nothing(
    things: Scenario, registry: SmallRegistry, monkeypatch: pytest.MonkeyPatch, by: Any
) -> None:
    first = pushed(things, registry.host, by=by)
    registry.seen.clear()
    monkeypatch.setattr(layer_bodies, "pieces", lambda *_, **__: pytest.fail("a file was read"))
    second = pushed(things, registry.host, by=by)
    assert (second.layers_pushed, second.bytes_pushed, second.manifest) == (0, 0, first.manifest)
    assert (sent_blobs(registry), registry.sent("POST")) == ([], [])


def test_next_version_sends_its_new_files_only(things: Scenario, registry: SmallRegistry) -> None:
    pushed(things, registry.host)
    (things.nas / "new.bin").write_bytes(b"new")
    things.stage()
    result = pushed(things, registry.host)
    assert (result.layers_pushed, result.bytes_pushed) == (1, 3)


def test_dry_run_sends_nothing(things: Scenario, registry: SmallRegistry) -> None:
    result = pushed(things, registry.host, dry_run=True)
    # Two of the six files are the same.
    assert (result.layers, result.layers_pushed, result.is_dry_run) == (6, 5, True)
    assert {request.method for request in registry.seen} == {"HEAD"}
    assert pushed(things, registry.host).manifest == result.manifest


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_registry_is_asked_again(things: Scenario, registry: SmallRegistry, status: int) -> None:
    registry.statuses.extend([status] * 5)
    assert pushed(things, registry.host).layers_pushed == 5


@pytest.mark.usefixtures("impatient")
def test_registry_that_stays_broken_ends_the_push(things: Scenario, registry: SmallRegistry) -> None:
    registry.statuses.extend([500] * 1000)
    with pytest.raises(SourceError, match="The server answers 500"):
        pushed(things, registry.host)
    assert len(registry.seen) < 50


def test_version_that_is_not_here_is_fetched(tmp_path: Path, things: Scenario, registry: SmallRegistry) -> None:
    node = things.node(cache="other")
    result = push(node, Address("things"), f"oci://{registry.host}/{TAG}")
    assert result.digest == things.head("latest")


def test_push_can_be_cancelled(things: Scenario, registry: SmallRegistry) -> None:
    class Already:
        def is_set(self) -> bool:
            return True

    with pytest.raises(Cancelled):
        pushed(things, registry.host, cancel=Already())
    assert registry.sent("POST") == []


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_damaged_file_ends_the_push(things: Scenario, registry: SmallRegistry) -> None:
    (path,) = (things.folder / "cache" / "views").rglob("a.csv")
    path.chmod(0o644)
    path.write_bytes(b"a,b\n1,3\n")
    with pytest.raises(CacheError, match="not the manifest's") as caught:
        pushed(things, registry.host)
    assert caught.value.object in ("a.csv", "same.csv")
    assert registry.sent("PUT") == []


def test_file_that_rots_after_its_digest_was_noted(things: Scenario, registry: SmallRegistry) -> None:
    pushed(things, registry.host, dry_run=True)
    (path,) = (things.folder / "cache" / "views").rglob("block.bin")
    path.chmod(0o644)
    path.write_bytes(bytes([1] * 512))
    with pytest.raises(CacheError, match="not the manifest's") as caught:
        pushed(things, registry.host)
    assert caught.value.object == "folder/block.bin"
    assert "me/things/v1" not in registry.manifests


@pytest.mark.parametrize(
    "target", ["oci://h/a@sha256:" + "0" * 64, "oci://h/a:b/c", "oci://h/a", "h/a:b", "https://h/a:b"]
)
def test_target_must_be_a_tag(things: Scenario, target: str) -> None:
    with pytest.raises(UsageError, match=r"is no tag|names no artifact"):
        push(things.node(), Address("things"), target)


def test_too_many_files_for_a_manifest_are_told(
    things: Scenario, registry: SmallRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "LARGEST_MANIFEST", 1000)
    with pytest.raises(UsageError, match=r"6 files takes .* registries take 1.0 kB.* --by shard"):
        pushed(things, registry.host, by="file")
    monkeypatch.setattr(pushing, "LARGEST_ROWS", 100)
    with pytest.raises(UsageError, match=r"rows have 944 B, and `oci://` reads 100 B .*\. Stage the files as several"):
        pushed(things, registry.host)
    assert registry.seen == []


def test_registry_that_changes_manifests_is_told(
    things: Scenario, registry: SmallRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = registry.store
    monkeypatch.setattr(registry, "store", lambda repository, tag, manifest: store(repository, tag, manifest + b" "))
    with pytest.raises(SourceError, match="The registry changed the manifest v1"):
        pushed(things, registry.host)


def test_refused_login_is_told_before_anything_is_fetched(things: Scenario, registry: SmallRegistry) -> None:
    registry.login = "basic"
    node = things.node(cache="other")
    with pytest.raises(AccessDenied):
        push(node, Address("things"), f"oci://{registry.host}/{TAG}")
    assert node.cache.views.path("things", things.head("latest")) is None


@pytest.mark.parametrize("login", ["basic", "token"])
def test_refused_login_is_told(things: Scenario, registry: SmallRegistry, login: Any) -> None:
    registry.login = login
    with pytest.raises(AccessDenied, match=r"denies access.*looked for 127.0.0.1:"):
        pushed(things, registry.host)
    with pytest.raises(AccessDenied, match="Tried with: 'me'"):
        pushed(things, registry.host, options={"username": "me", "password": "wrong"})


# Of a token, each of four uploads that wait for it needs one use: with three, the last may be refused for good.
@pytest.mark.parametrize(("login", "uses"), [("basic", 0), ("token", 6), ("token", 1000)])
def test_login_lasts_as_long_as_the_push(
    tmp_path: Path, things: Scenario, registry: SmallRegistry, monkeypatch: pytest.MonkeyPatch, login: Any, uses: int
) -> None:
    registry.login, registry.uses = login, uses
    monkeypatch.setenv("DOCKER_CONFIG", str(store_login(tmp_path / "docker", registry.host)))
    assert pushed(things, registry.host).layers_pushed == 5


def test_uploads_that_are_refused_together_log_in(things: Scenario) -> None:
    """Everybody may read; all four uploads are refused before one of them has logged in."""
    refused = threading.Barrier(4)

    def serve(head: bytes, _: object) -> bytes:
        if head.startswith(b"HEAD"):
            return response(b"", "404 Not Found")
        if b"authorization: basic" not in head.lower():
            refused.wait(10)
            return response(b"", "401 Unauthorized", {"WWW-Authenticate": 'Basic realm="x"'})
        return response(b"", "201 Created", {"Location": "/v2/me/things/blobs/uploads/1"})

    with raw_server(serve) as server:
        options = {"username": USER, "password": PASSWORD}
        assert pushed(things, server.address, options=options).layers_pushed == 5


def test_error_need_not_wait_for_a_silent_upload(things: Scenario) -> None:
    silent = digest_of(FILES["a.csv"]).partition(":")[2].encode()

    def serve(head: bytes, _: object) -> bytes:
        if head.startswith(b"PUT") and silent in head:
            time.sleep(10)
        if head.startswith(b"PUT"):
            return response(b"", "413 Content Too Large")
        status = "404 Not Found" if head.startswith(b"HEAD") else "202 Accepted"
        return response(b"", status, {"Location": "/v2/me/things/blobs/uploads/1"})

    with raw_server(serve) as server:
        begun = time.monotonic()
        with pytest.raises(SourceError, match="The server answers 413"):
            pushed(things, server.address)
        assert time.monotonic() - begun < 5


def test_silent_upload_is_sent_once_more(things: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pushing, registry_login):
        monkeypatch.setattr(module, "UPLOAD_IDLE", 0.5)
    uploads: list[bytes] = []

    def serve(head: bytes, _: object) -> bytes:
        if head.startswith(b"PUT"):
            uploads.append(head.split()[1])
            time.sleep(20)
        status = "404 Not Found" if head.startswith(b"HEAD") else "202 Accepted"
        return response(b"", status, {"Location": "/v2/me/things/blobs/uploads/1"})

    with raw_server(serve) as server:
        begun = time.monotonic()
        with pytest.raises(
            SourceError, match=r"stopped answering: twice it took nothing of a layer.* for 0\.5 s"
        ) as caught:
            pushed(things, server.address)
        assert time.monotonic() - begun < 15
    assert "Push again later" in caught.value.hint
    assert max(map(uploads.count, uploads)) == 2


def test_layer_whose_answer_was_lost_is_not_sent_again(
    things: Scenario, registry: SmallRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some registries hash a layer again, for longer than its answer is waited for."""
    for module in (pushing, registry_login):
        monkeypatch.setattr(module, "UPLOAD_IDLE", 0.5)
    monkeypatch.setattr(registry, "pause", 2.0)
    pushed(things, registry.host)
    blobs = [path.partition("?")[2] for path in sent_blobs(registry)]
    assert len(blobs) == len(set(blobs))


def test_upload_to_another_server_gets_no_login(things: Scenario, registry: SmallRegistry) -> None:
    registry.login = "basic"
    port = registry.host.rpartition(":")[2]
    registry.upload_at = f"http://localhost:{port}"
    with pytest.raises(SourceError, match="leads an upload to another server, localhost:"):
        pushed(things, registry.host, options={"username": USER, "password": PASSWORD})
    assert sent_blobs(registry) == []


def test_missing_repository_is_told(things: Scenario) -> None:
    """As Amazon's registry, which makes none by itself."""
    with (
        raw_server(lambda *_: response(b'{"errors":[{"code":"NAME_UNKNOWN"}]}', "404 Not Found")) as server,
        pytest.raises(SourceError, match=r"^The registry has no such repository .* Create it there"),
    ):
        pushed(things, server.address)


def test_upload_to_no_url_is_told(things: Scenario, registry: SmallRegistry) -> None:
    registry.upload_at = "http://[x"
    with pytest.raises(SourceError, match="leads an upload to no usable URL"):
        pushed(things, registry.host)


# ── decisions ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("refers", [True, False])
def test_decisions_and_attestations_are_referrers(things: Scenario, registry: SmallRegistry, refers: bool) -> None:
    registry.refers = refers
    things.run("policy", "adopt", str(things.spec_file()), "--reason", "first")
    things.promote("pilot")
    first, second = pushed(things, registry.host), pushed(things, registry.host)
    assert [(found.kind, found.artifact_type, found.is_new) for found in first.referrers] == [
        ("decision", "application/vnd.stagegate.decision.v1+json", True),
        ("attestation", "application/vnd.in-toto+json", True),
    ]
    assert [found.is_new for found in second.referrers] == [False, False]
    statement = newest_attestation(things.node().catalog, "things", first.digest, "pilot")
    attestation = json.loads(registry.manifests[f"me/things/{first.referrers[1].digest}"])
    assert attestation["subject"]["digest"] == first.manifest
    assert json.loads(registry.blobs[attestation["layers"][0]["digest"]]) == statement
    annotations = json.loads(registry.manifests["me/things/v1"])["annotations"]
    assert re.fullmatch("sha256:[0-9a-f]{64}", annotations["io.stagegate.decision.pilot"])
    index = registry.manifests.get("me/things/" + first.manifest.replace(":", "-"))
    listed = [item["digest"] for item in json.loads(index)["manifests"]] if index else []
    assert listed == ([] if refers else [found.digest for found in first.referrers])


def test_envelope_of_another_decision_is_not_pushed(things: Scenario, registry: SmallRegistry) -> None:
    things.run("policy", "adopt", str(things.spec_file()), "--reason", "first")
    things.promote("pilot")
    catalog = things.node().catalog
    recorded = statement_digest(newest_attestation(catalog, "things", things.head("latest"), "pilot") or {})
    other = {"payload": "e30=", "payloadType": "application/vnd.in-toto+json", "signatures": []}
    catalog.create(SIGNATURES, dict(other), "things", recorded, "0" * 64)
    attestation = pushed(things, registry.host).referrers[1]
    assert attestation.artifact_type == "application/vnd.in-toto+json"
    assert digest_of(canonical(other)) not in registry.blobs


def test_decisions_can_be_left_out(things: Scenario, registry: SmallRegistry) -> None:
    things.run("policy", "adopt", str(things.spec_file()), "--reason", "first")
    things.promote("pilot")
    assert pushed(things, registry.host, decisions=False).referrers == ()
    assert "decision" not in registry.manifests["me/things/v1"].decode()


def test_decision_that_can_t_be_read_moves_no_tag(
    things: Scenario, registry: SmallRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = {"production": {"predicate": {"stagegate": {"format": 99}}, "predicateType": "x"}}
    monkeypatch.setattr(pushing, "recorded_decisions", lambda *_: newer)
    with pytest.raises(CorruptRecord):
        pushed(things, registry.host)
    assert registry.seen == []


def test_referrers_of_other_tools_stay_as_they_are(things: Scenario, registry: SmallRegistry) -> None:
    things.run("policy", "adopt", str(things.spec_file()), "--reason", "first")
    things.promote("pilot")
    tag = "me/things/" + pushed(things, registry.host, dry_run=True).manifest.replace(":", "-")
    other = {"mediaType": "x/y", "digest": "sha512:" + "a" * 128, "size": 1, "platform": {"os": "linux"}}
    registry.manifests[tag] = json.dumps({"manifests": [other], "annotations": {"of": "others"}}).encode()
    referrers = pushed(things, registry.host).referrers
    index = json.loads(registry.manifests[tag])
    assert (index["manifests"][0], index["annotations"]) == (other, {"of": "others"})
    assert [item["digest"] for item in index["manifests"][1:]] == [referrer.digest for referrer in referrers]


def test_index_of_referrers_that_is_none_is_refused(things: Scenario, registry: SmallRegistry) -> None:
    things.run("policy", "adopt", str(things.spec_file()), "--reason", "first")
    things.promote("pilot")
    manifest = pushed(things, registry.host, dry_run=True).manifest
    registry.store("me/things", manifest.replace(":", "-"), b'{"manifests": 5}')
    with pytest.raises(SourceError, match="no OCI index"):
        pushed(things, registry.host)


# ── the command, and other tools ────────────────────────────────────────────────────────────────────────────────────


def test_command_says_what_was_sent(
    things: Scenario, registry: SmallRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    target = f"oci://{registry.host}/{TAG}"
    assert things.run("push", "things", target, "--quiet") == 0
    assert capsys.readouterr().out == ""
    assert things.run("push", "things", target) == 0
    out = capsys.readouterr().out
    assert "6 files, 2.2 kB in 6 layers: 0 sent (0 B), 6 were there" in out
    assert things.run("push", "things", target, "--json") == 0
    assert json.loads(capsys.readouterr().out)["layers_pushed"] == 0
    registry.login = "basic"
    assert things.run("push", "things", target) == 3
    assert "Log in by `docker login`" in capsys.readouterr().err
    assert things.run("push", "things", "oci://nowhere") == 2


@pytest.mark.system
@pytest.mark.parametrize("by", ["file", "shard"])
def test_oras_pulls_what_was_pushed(tmp_path: Path, things: Scenario, monkeypatch: pytest.MonkeyPatch, by: Any) -> None:
    """Debian's docker-registry with a password, and ORAS' own client."""
    things.run("policy", "adopt", str(things.spec_file()), "--reason", "first")
    things.promote("pilot")
    with debian_registry(tmp_path / "registry", password=True) as server:
        monkeypatch.setenv("DOCKER_CONFIG", str(store_login(tmp_path / "docker", server.host)))
        first, second = pushed(things, server.host, by=by), pushed(things, server.host, by=by)
        assert (second.layers_pushed, second.manifest) == (0, first.manifest)
        pulled = tmp_path / "pulled"
        _oras(tmp_path, "pull", "--plain-http", "--output", str(pulled), f"{server.host}/{TAG}")
        rows = (pulled / "stagegate.rows").read_bytes()
        assert f"sha256:{hashlib.sha256(rows).hexdigest()}" == first.digest
        if by == "shard":
            subprocess.run(["tar", "-xf", "stagegate.files-1.tar"], cwd=pulled, check=True)
        assert {path: (pulled / path).read_bytes() for path in FILES} == FILES
        discovered = _oras(tmp_path, "discover", "--plain-http", f"{server.host}/{TAG}")
        assert "application/vnd.in-toto+json" in discovered
        assert "application/vnd.stagegate.decision.v1+json" in discovered
        assert all(referrer.digest in discovered for referrer in first.referrers)
        assert staged_elsewhere(tmp_path / "elsewhere", server.host).digest == first.digest
        # What ORAS copies is the same artifact.
        _oras(
            tmp_path,
            "copy",
            "--from-plain-http",
            "--to-plain-http",
            f"{server.host}/{TAG}",
            f"{server.host}/you/copy:x",
        )
        copied = Scenario(_made(tmp_path / "copied")).stage(sources=[{"url": f"oci://{server.host}/you/copy:x"}])
        assert copied.digest == first.digest


@pytest.mark.system
def test_registry_with_tls_and_a_token_server(
    tmp_path: Path, things: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    with token_registry(tmp_path / "registry") as server:
        monkeypatch.setenv("DOCKER_CONFIG", str(store_login(tmp_path / "docker", server.host)))
        authority = {"verify": str(tmp_path / "registry/ca.pem"), "plain_http": False}
        with pytest.raises(SourceError, match=r"certificate of localhost:.* is not trusted"):
            pushed(things, server.host, options={"plain_http": False})
        result = pushed(things, server.host, options=authority)
        assert {"repository:me/things:pull", "repository:me/things:pull,push"} <= set(server.scopes)
        elsewhere = Scenario(_made(tmp_path / "elsewhere"))
        version = elsewhere.stage(sources=[{"url": f"oci://{server.host}/{TAG}", "options": authority}])
        assert version.digest == result.digest


@pytest.mark.system
def test_artifact_that_oras_pushed_is_staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _made(tmp_path / "theirs" / "data")
    for path in ("a.csv", "same.csv"):
        (folder / path).write_bytes(FILES[path])
    with debian_registry(tmp_path / "registry", password=True) as server:
        monkeypatch.setenv("DOCKER_CONFIG", str(store_login(tmp_path / "docker", server.host)))
        _oras(folder.parent, "push", "--plain-http", f"{server.host}/{TAG}", "data/a.csv", "data/same.csv")
        version = Scenario(tmp_path).stage(sources=[{"url": f"oci://{server.host}/{TAG}/data/"}])
        assert sorted(path.name for path in version.path.iterdir()) == ["a.csv", "same.csv"]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _oras(folder: Path, *words: str) -> str:
    command = [command_path("oras", "oras"), *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
