"""Servers that repeat the credentials they were sent: what they say stands in no error, log, record or report."""

from __future__ import annotations

import base64
import json
import logging
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.sources import open_source
from prefect_stagegate.testing.servers import SeaweedFS
from tests.plugins.clouds import Cloud
from tests.plugins.exchange.registries import small_registry
from tests.plugins.hub.small_hub import small_hub
from tests.support.faults import Echo
from tests.support.http_servers import file_server
from tests.support.proxy import FaultProxy
from tests.support.webservers import USER, rclone

CANARY = "CANARY+token/9f8e7d6c5b4a"
SIGNATURE = re.compile(rb"Signature(?:=|%3D)[0-9a-f]{64}")
"""The signature of a request by AWS's rules."""
ECHOES = (
    Echo(400, "reason"),
    Echo(403, "reason"),
    Echo(500, "reason"),
    Echo(400, "body"),
    Echo(400, "document"),
    Echo(200, "body", '{{"SecretAccessKey": "{}"}}'),
    Echo(200, "Content-Type", "text/{}"),
    Echo(200, "Content-Encoding"),
    Echo(401, "WWW-Authenticate"),
    Echo(302, "Location", "/elsewhere?X-Amz-Signature={}"),
    Echo(302, "Location", "ftp://{}/"),
    Echo(302, "Location", "http://169.254.169.254/{}"),
    Echo(302, "Location", "//[{}"),
)


def forms(secret: str) -> list[bytes]:
    """How a secret may be written down."""
    raw = secret.encode()
    cores = [base64.b64encode(b"\0" * shift + raw)[4:-4] for shift in range(3)]
    return [raw, quote(secret).encode(), quote(secret, safe="").encode(), json.dumps(secret)[1:-1].encode(), *cores]


def leaks(data: str | bytes) -> list[bytes]:
    """What of the secrets stands in the data."""
    data = data.encode() if isinstance(data, str) else data
    return [form for form in forms(CANARY) if form in data] + SIGNATURE.findall(data)


@dataclass(frozen=True)
class Family:
    """A source at a real server, which is asked through a proxy that can echo."""

    proxy: FaultProxy
    url: str
    options: dict[str, Any] = field(default_factory=dict)


@contextmanager
def _http(folder: Path) -> Iterator[Family]:
    with file_server(folder) as url, FaultProxy(url) as proxy:
        yield Family(proxy, f"{proxy.url}/data/", {"headers": {"Authorization": f"Bearer {CANARY}"}})


@contextmanager
def _webdav(folder: Path) -> Iterator[Family]:
    with rclone("webdav", folder, "--read-only", "--user", "me", "--pass", CANARY) as server:
        (server.root / "data").mkdir()
        (server.root / "data" / "a.bin").write_bytes(b"a" * 100)
        with FaultProxy(server.url.rstrip("/")) as proxy:
            yield Family(proxy, f"webdav+{proxy.url}/data/", {"username": "me", "password": CANARY})


@contextmanager
def _hub(_: Path) -> Iterator[Family]:
    with small_hub() as hub, FaultProxy(hub.endpoint) as proxy:
        hub.put("datasets/me/things", "a.bin", b"a" * 100)
        yield Family(proxy, "hf://datasets/me/things/", {"endpoint": proxy.url, "token": CANARY})


@contextmanager
def _registry(_: Path) -> Iterator[Family]:
    with small_registry(login="basic", password=CANARY) as registry, FaultProxy(f"http://{registry.host}") as proxy:
        registry.tag("me/things", "v1", {"a.bin": b"a" * 100})
        host = proxy.url.removeprefix("http://")
        yield Family(proxy, f"oci://{host}/me/things:v1", {"username": USER, "password": CANARY})


@contextmanager
def _s3(server: SeaweedFS, more: dict[str, str], _: Path) -> Iterator[Family]:
    bucket = server.bucket(f"echo-{uuid4().hex[:8]}")
    server.client().pipe(f"{bucket}/a.bin", b"a" * 100)
    with FaultProxy(server.endpoint_url) as proxy:
        yield Family(proxy, f"{bucket}/", {**server.storage_options, "endpoint_url": proxy.url, **more})


@contextmanager
def _cloud(server: Cloud, options: dict[str, Any], _: Path) -> Iterator[Family]:
    bucket = server.bucket(f"echo-{uuid4().hex[:8]}")
    server.client().pipe_file(f"{bucket}/a.bin", b"a" * 100)
    with FaultProxy(server.endpoint_url) as proxy:
        yield Family(proxy, f"{bucket}/", {"endpoint_url": proxy.url, **options})


FAMILIES = (
    "http",
    "webdav",
    "hub",
    "registry",
    "s3",
    "s3 session",
    "gcs",
    pytest.param("azure", marks=pytest.mark.system),
)


@pytest.fixture
def family(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Family]:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.bin").write_bytes(b"a" * 100)
    opened: dict[str, Callable[[Path], Any]] = {
        "http": _http,
        "webdav": _webdav,
        "hub": _hub,
        "registry": _registry,
        "s3": lambda folder: _s3(request.getfixturevalue("seaweedfs"), {}, folder),
        "s3 session": lambda folder: _s3(request.getfixturevalue("seaweedfs"), {"token": CANARY}, folder),
        "gcs": lambda folder: _cloud(request.getfixturevalue("gcs"), {"token": CANARY}, folder),
        "azure": lambda folder: _cloud(
            request.getfixturevalue("azure"),
            {"account_name": "acme", "account_key": base64.b64encode(CANARY.encode()).decode()},
            folder,
        ),
    }
    with opened[request.param](tmp_path) as opened_family:
        yield opened_family


def everything_told(error: BaseException) -> str:
    """What an error tells, with all that it leads to."""
    text = "".join(traceback.format_exception(error))
    left, seen = [error], list[BaseException]()
    while left:
        cause = left.pop()
        if cause not in seen:
            seen.append(cause)
            text += f"{cause} {cause!r} {cause.__dict__}"
            left += [other for other in (cause.__cause__, cause.__context__) if other]
    return text


def met(family: Family, echo: Echo, *, when: str) -> StagegateError | None:
    """The error that a server's echo leads to: while it is listed, or an object of it is read."""
    try:
        with closing(open_source(family.url, family.options)) as source:
            family.proxy.refuse = lambda _: echo if when == "listing" else None
            (listed,) = source.list()
            family.proxy.refuse = lambda _: echo
            source.read_into(listed, 0, memoryview(bytearray(listed.size)))
    except StagegateError as error:
        return error
    finally:
        family.proxy.refuse = lambda _: None
    return None


@pytest.mark.parametrize("family", FAMILIES, indirect=True)
def test_what_a_server_echoes_is_told_nowhere(family: Family, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    errors = [met(family, echo, when=when) for echo in ECHOES for when in ("listing", "reading")]
    texts = [everything_told(error) for error in errors if error]
    assert len(texts) > len(ECHOES), "few echoes led to an error"
    assert [text for text in texts if leaks(text)] == []
    assert leaks(caplog.text) == []


def test_an_error_document_is_quoted_by_its_message(seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    with _s3(seaweedfs, {}, tmp_path) as family:
        error = met(family, Echo(400, "document", "Too odd for {}"), when="listing")
        assert error
        assert "answers 400 Bad Request: Too odd for" in error.message
        error = met(family, Echo(400, "body", "Nobody's secret {}"), when="listing")
        assert error
        assert "Nobody's secret" not in everything_told(error)
        error = met(family, Echo(200, "body", '{{"Code": "Success", "Key": "Nobody\'s secret {}"}}'), when="listing")
        assert error
        assert "sends something else than a listing" in error.message
        assert "Nobody's secret" not in everything_told(error)


# ── by the command ──────────────────────────────────────────────────────────────────────────────────────────────────

FLAGS = (("--debug",), ("--json",))


def _spec(family: Family, tmp_path: Path, *, dataset: str, into: str = "") -> dict[str, Any]:
    """A dataset of the family's source and a sound folder. Its credentials are left to the environment."""
    (tmp_path / "sound").mkdir(exist_ok=True)
    (tmp_path / "sound" / "b.bin").write_bytes(b"b" * 100)
    options = {name: value for name, value in family.options.items() if name in ("endpoint", "endpoint_url")}
    sources = [
        {"url": family.url, "options": options, "into": into or "echoed/"},
        {"url": f"file://{tmp_path}/sound/", "into": "sound/"},
    ]
    return {
        "stagegate": 1,
        "dataset": dataset,
        "sources": sources,
        "max_failed_objects": 1,
        "contract": {"files": [{"match": "**/*.bin", "probes": ["nonempty"]}]},
        "gates": {"pilot": {"require": ["read_probe", "coverage"]}},
    }


@pytest.mark.parametrize("family", ["hub", "s3"], indirect=True)
def test_commands_and_records_hold_no_echo(
    family: Family,
    run_stagegate: Callable[..., CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    env = {
        "HF_TOKEN": CANARY,
        "AWS_ACCESS_KEY_ID": str(family.options.get("key")),
        "AWS_SECRET_ACCESS_KEY": str(family.options.get("secret")),
    }
    echo = Echo(400, "reason") if "endpoint" in family.options else Echo(400, "document")
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(_spec(family, tmp_path, dataset="echoed")))
    page = tmp_path / "page.html"
    family.proxy.break_with(lambda fetch: echo if fetch.path.endswith("a.bin") else None)
    done = [run_stagegate("stage", spec, *flags, env=env) for flags in FLAGS]
    assert [result.returncode for result in done] == [0, 0], done
    assert re.search(r"a\.bin: .* 400\b", done[0].stdout)
    family.proxy.refuse = lambda _: echo
    done += [run_stagegate("stage", spec, *flags, env=env) for flags in FLAGS]
    done.append(run_stagegate("doctor", spec, "--debug", env=env))
    done.append(run_stagegate("check", "echoed", "--gate", "pilot", "--html", page, env=env))
    assert [result.returncode for result in done[2:]] == [3, 3, 3, 1], done[2:]
    assert page.exists()
    assert [(result.args, leaked) for result in done if (leaked := leaks(result.stdout + result.stderr))] == []
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in written if any(form in path.read_bytes() for form in forms(CANARY))] == []


@pytest.mark.system
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("family", ["hub"], indirect=True)
def test_runs_and_their_pages_hold_no_echo(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

    from prefect_stagegate.flows import stage
    from tests.support.told import artifact

    monkeypatch.setenv("HF_TOKEN", CANARY)
    places = {"cache": tmp_path / "cache", "catalog": tmp_path / "catalog"}
    spec = _spec(family, tmp_path, dataset="echoed-flow")
    family.proxy.break_with(lambda fetch: Echo(400, "reason") if fetch.path.endswith("a.bin") else None)
    assert stage(spec, **places).failed
    family.proxy.refuse = lambda _: Echo(400, "reason", "{} " + "A" * 9)
    with pytest.raises(StagegateError, match="The server answers 400"):
        stage(spec, **places)
    assert "The server answers 400" in artifact("echoed-flow-failed")["data"]
    with get_client(sync_client=True) as client:
        reads = (client.read_flow_runs, client.read_task_runs, client.read_logs, client.read_artifacts)
        records = json.dumps([[record.model_dump(mode="json") for record in read()] for read in reads])
    database = Path(str(PREFECT_API_DATABASE_CONNECTION_URL.value()).partition("///")[2])
    written = b"".join(path.read_bytes() for path in database.parent.glob(f"{database.name}*"))
    texts = {"the API": records.encode(), "the server's database": written, "logs": caplog.text.encode()}
    assert {path: [form for form in forms(CANARY) if form in data] for path, data in texts.items()} == {
        path: [] for path in texts
    }
