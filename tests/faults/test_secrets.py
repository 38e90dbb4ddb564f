"""Secrets stay where their users put them: canaries stand in every such place, and all that was written is searched.

Each canary is searched for by its text, its base64 and its percent-encoding, in the cache, the catalog, the home, what
commands print, what Prefect's server stores, and the command lines of all processes that ran meanwhile.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from fsspec import AbstractFileSystem
from fsspec.registry import _registry

from prefect_stagegate.errors import StagegateError
from prefect_stagegate.testing.servers import SeaweedFS
from tests.support.http_servers import Handler, http_server

Run = Callable[..., CompletedProcess[str]]

CANARY = "CANARY+{}/9f8e7d6c5b4a"
PLACES = ("key", "secret", "token", "password", "query", "block", "session", "catalog")
CANARIES = {origin: CANARY.format(origin) for origin in PLACES}


def forms(secret: str) -> list[bytes]:
    """How a secret may be written down."""
    raw = secret.encode()
    return [raw, base64.b64encode(raw).rstrip(b"=")[:-1], quote(secret, safe="").encode()]


def found_in(data: bytes, secrets: dict[str, str]) -> list[str]:
    """Which secrets stand in the data."""
    return [origin for origin, secret in secrets.items() if any(form in data for form in forms(secret))]


def found_below(folder: Path, secrets: dict[str, str]) -> dict[str, list[str]]:
    """Which files hold which secrets; names of files count too."""
    return {
        str(path): leaks
        for path in folder.rglob("*")
        if (leaks := found_in(str(path).encode() + (path.read_bytes() if path.is_file() else b""), secrets))
    }


@contextmanager
def command_lines(secrets: dict[str, str]) -> Iterator[list[str]]:
    """Look at the command lines of all processes again and again during the block, and give those with a secret.

    All that the block starts and all that these start: they inherit a mark. What other tests start meanwhile is theirs.
    """
    caught: list[str] = []
    ended, mark = threading.Event(), f"SECRETS_TEST={uuid4().hex}"

    def watch() -> None:
        while not ended.wait(0.02):
            for path in Path("/proc").glob("[0-9]*"):
                try:
                    line = (path / "cmdline").read_bytes()
                    if found_in(line, secrets) and mark.encode() in (path / "environ").read_bytes():
                        caught.append(line.decode(errors="replace"))
                except OSError:
                    continue  # it ended meanwhile

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(*mark.split("="))
            yield caught
    finally:
        ended.set()
        watcher.join()


def test_a_secret_on_a_command_line_is_seen() -> None:
    with command_lines(CANARIES) as caught:
        subprocess.run(["sh", "-c", "sleep 0.5", CANARIES["token"]], check=True)
    assert caught


SPEC: dict[str, Any] = {
    "stagegate": 1,
    "dataset": "things",
    "owners": {"data": "data@example.org"},
    "contract": {"files": [{"match": "*.csv", "probes": ["csv"]}]},
    "gates": {"pilot": {"require": ["nonempty", "digest", {"space": {"warn": 1.0, "fail": 1.0}}]}},
}


def write_spec(path: Path, source: dict[str, Any], **more: Any) -> Path:
    path.write_text(json.dumps({**SPEC, "sources": [source], **more}))
    return path


def seaweedfs_canaries(server: SeaweedFS) -> dict[str, str]:
    """The secret that opens the server is one too."""
    return {**CANARIES, "owner": server.secret}


# ── by the command ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_commands_write_no_secret_whatever_becomes_of_them(
    seaweedfs: SeaweedFS, run_stagegate: Run, tmp_path: Path
) -> None:
    bucket = seaweedfs.bucket("secret-command")
    for number in range(3):
        seaweedfs.client().pipe(f"{bucket}/{number}.csv", b"a,b\n1,2\n")
    options = {"endpoint_url": seaweedfs.endpoint_url}
    good = {"AWS_ACCESS_KEY_ID": seaweedfs.key, "AWS_SECRET_ACCESS_KEY": seaweedfs.secret}
    wrong = {**good, "AWS_SECRET_ACCESS_KEY": CANARIES["secret"], "AWS_SESSION_TOKEN": CANARIES["token"]}
    stranger = {**wrong, "AWS_ACCESS_KEY_ID": CANARIES["key"]}
    spec = write_spec(tmp_path / "good.json", {"url": f"{bucket}/", "options": options})
    gone = write_spec(tmp_path / "gone.json", {"url": "s3://no-such-bucket/", "options": options}, dataset="gone")
    slow = {"url": f"{bucket}/", "options": {**options, "config_kwargs": {"max_pool_connections": 4}}}
    by_s3fs = write_spec(tmp_path / "s3fs.json", slow, dataset="by-s3fs")
    catalog = {**good, "STAGEGATE_CATALOG": f"{bucket}/catalog", "AWS_ENDPOINT_URL": seaweedfs.endpoint_url}
    runs: list[tuple[int, list[Any], dict[str, str]]] = [
        (0, ["stage", spec, "--debug"], catalog),
        (0, ["check", "things", "--gate", "pilot", "--debug"], catalog),
        (0, ["promote", "things", "--to", "pilot", "--debug"], catalog),
        (0, ["history", "things", "--json", "--debug"], catalog),
        (3, ["stage", spec, "--debug"], wrong),
        (3, ["stage", spec, "--debug"], stranger),
        (3, ["stage", gone, "--debug"], good),
        (3, ["stage", by_s3fs, "--debug"], stranger),
        (3, ["ls", "--debug"], {**catalog, **wrong}),
        (2, ["ls", "--debug"], {**good, "STAGEGATE_CATALOG": f"s3://me:{CANARIES['catalog']}@lake/catalog"}),
        (2, ["stage", spec, "--debug"], {**good, "AWS_ENDPOINT_URL": f"http://me:{CANARIES['password']}@127.0.0.1:1"}),
    ]
    secrets = seaweedfs_canaries(seaweedfs)
    with command_lines(secrets) as caught:
        results = [run_stagegate(*words, env=env) for _, words, env in runs[:4]]
        with ThreadPoolExecutor(2) as pool:
            results += pool.map(lambda run: run_stagegate(*run[1], env=run[2]), runs[4:])
    outputs = [
        (" ".join(map(str, run[1])), result.stdout + result.stderr) for run, result in zip(runs, results, strict=True)
    ]
    assert [result.returncode for result in results[:-1]] == [code for code, _, _ in runs[:-1]], outputs
    assert {words: leaks for words, text in outputs if (leaks := found_in(text.encode(), secrets))} == {}
    assert found_below(tmp_path, secrets) == {}
    stored = seaweedfs.client()
    assert not [name for name in stored.find("secret-command") if found_in(stored.cat(name), secrets)]
    assert caught == []


@pytest.mark.parametrize(
    "source",
    [
        {"url": "s3://lake/", "options": {"key": CANARIES["key"], "secret": CANARIES["secret"]}},
        {"url": "s3://lake/", "options": {"client_kwargs": {"aws_session_token": CANARIES["token"]}}},
        {"url": f"https://me:{CANARIES['password']}@files.example.org/data/"},
        {"url": f"sftp://me:{CANARIES['password']}@nas.example.org/data/"},
        {"url": f"sftp://me:{quote(CANARIES['password'], safe='')}@nas.example.org/data/"},
        {"url": f"https://files.example.org/data/?X-Amz-Signature={quote(CANARIES['query'])}"},
        {"url": "s3://lake/", "mirrors": [{"url": f"https://me:{CANARIES['password']}@files.example.org/"}]},
        {"url": "s3://lake/", "credentials": CANARIES["block"]},
        {"url": "s3://lake/", "options": {"endpoint_url": f"https://me:{CANARIES['password']}@s3.example.org"}},
    ],
)
def test_a_spec_with_a_secret_is_refused_without_repeating_it(
    source: dict[str, Any], run_stagegate: Run, tmp_path: Path
) -> None:
    (tmp_path / "spec").mkdir()
    spec = write_spec(tmp_path / "spec" / "bad.json", source)
    result = run_stagegate("stage", spec, "--debug")
    assert result.returncode == 2
    # Not only what would come of it, such as a library that is missing.
    assert re.search(r"bad\.json has \d problems?:", result.stderr)
    assert found_in((result.stdout + result.stderr).encode(), CANARIES) == []
    spec.unlink()
    assert found_below(tmp_path, CANARIES) == {}


class Refusing(Handler):
    """Answers every request with an error that repeats the address."""

    status = 500

    def do_GET(self) -> None:
        self.respond(self.status, f"cannot serve {self.path} {self.headers.get('Authorization')}".encode())

    do_HEAD = do_GET


@pytest.mark.parametrize("status", [401, 404, 500])
def test_errors_of_web_servers_are_told_without_what_was_signed(status: int, caplog: pytest.LogCaptureFixture) -> None:
    import traceback

    from prefect_stagegate.sources import open_source

    login = {"client_kwargs": {"headers": {"Authorization": f"Bearer {CANARIES['token']}"}}}
    caplog.set_level(logging.INFO)
    with http_server(type("Handler", (Refusing,), {"status": status})) as server:
        address = f"{server.removeprefix('http://')}/data.csv?code={quote(CANARIES['query'])}"
        for url, options in (
            (f"http://{address}", login),
            (f"http://me:{quote(CANARIES['password'], safe='')}@{address}", {}),
            (f"http://127.0.0.1:1/data.csv?code={quote(CANARIES['query'])}", login),
        ):
            with pytest.raises(StagegateError) as caught:
                list(open_source(url, options).list())
            text = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__dict__)
            assert found_in(text.encode(), CANARIES) == []
    assert found_in(caplog.text.encode(), CANARIES) == []


class Talkative(AbstractFileSystem):  # type: ignore[misc]
    """Some libraries repeat in their errors what they were given."""

    protocol = "talkative"

    def __init__(self, password: str = "", **options: Any) -> None:
        super().__init__(**options)
        raise ValueError(f"cannot log in with {password!r}, {quote(password, safe='')}")


def test_what_a_library_repeats_of_its_options_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import traceback

    from prefect_stagegate.sources import open_source

    monkeypatch.setitem(_registry, "talkative", Talkative)
    with pytest.raises(StagegateError, match="cannot log in") as caught:
        open_source(f"talkative://me:{quote(CANARIES['password'], safe='')}@host/", {"password": CANARIES["password"]})
    assert found_in("".join(traceback.format_exception(caught.value)).encode(), CANARIES) == []


# ── by flows ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("prefect_server")
def test_flows_leave_no_secret_with_prefect(
    seaweedfs: SeaweedFS, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
    from prefect.types import SecretDict
    from prefect_aws import AwsCredentials
    from prefect_aws.client_parameters import AwsClientParameters
    from pydantic import SecretStr

    from prefect_stagegate.blocks import StagegateCatalog, StagegateSource
    from prefect_stagegate.flows import pilot_to_production

    bucket = seaweedfs.bucket("secret-flow")
    seaweedfs.client().pipe(f"{bucket}/data.csv", b"a,b\n1,2\n")
    endpoint = AwsClientParameters(endpoint_url=seaweedfs.endpoint_url)

    def aws(secret: str) -> AwsCredentials:
        return AwsCredentials(
            aws_access_key_id=seaweedfs.key, aws_secret_access_key=SecretStr(secret), aws_client_parameters=endpoint
        )

    wrong = SecretDict({"key": seaweedfs.key, "secret": CANARIES["block"], "token": CANARIES["session"]})
    blocks: dict[str, Any] = {
        "right": aws(seaweedfs.secret),
        "wrong": aws(CANARIES["secret"]),
        "own": StagegateSource(url=f"{bucket}/", options={"endpoint_url": seaweedfs.endpoint_url}, credentials=wrong),
        "catalog": StagegateCatalog(url=f"{bucket}/catalog", credentials_block="aws-credentials/right"),
        "refused": StagegateCatalog(
            url=f"{bucket}/catalog", options={"endpoint_url": seaweedfs.endpoint_url}, credentials=wrong
        ),
    }
    for name, block in blocks.items():
        block.save(name, overwrite=True, _sync=True)
    secrets = seaweedfs_canaries(seaweedfs)
    cache = tmp_path / "cache"
    with command_lines(secrets) as caught:
        spec = {
            **SPEC,
            "sources": [{"url": f"{bucket}/", "include": ["*.csv"], "credentials": "aws-credentials/right"}],
        }
        decision = pilot_to_production(spec, targets=["pilot"], cache=cache, catalog=blocks["catalog"])
        assert getattr(decision, "accepted", False)
        for name in ("aws-credentials/wrong", "stagegate-source/own"):
            must_fail(f"{bucket}/", name, cache, blocks["catalog"])
        must_fail(f"{bucket}/", "aws-credentials/right", cache, blocks["refused"])
        spoil_block("aws-credentials", "wrong", {"aws_secret_access_key": [CANARIES["secret"]]})
        must_fail(f"{bucket}/", "aws-credentials/wrong", cache, blocks["catalog"])
    with get_client(sync_client=True) as client:
        records = json.dumps(
            [
                [record.model_dump(mode="json") for record in reads()]
                for reads in (client.read_flow_runs, client.read_task_runs, client.read_logs, client.read_artifacts)
            ]
        )
    assert "can't be loaded here" in records, "the logs of the last run are not there yet"
    database = Path(str(PREFECT_API_DATABASE_CONNECTION_URL.value()).partition("///")[2])
    written = b"".join(path.read_bytes() for path in database.parent.glob(f"{database.name}*"))
    assert b"stagegate.version.staged" in written
    printed = capfd.readouterr()
    texts: dict[str, str | bytes] = {
        "the API": records,
        "the server's database": written,
        "logs": caplog.text,
        "output": printed.out + printed.err,
    }
    for name, text in texts.items():
        data = text.encode() if isinstance(text, str) else text
        assert (name, found_in(data, secrets)) == (name, [])
    assert found_below(tmp_path, secrets) == {}
    stored = seaweedfs.client()
    assert not [name for name in stored.find("secret-flow") if found_in(stored.cat(name), secrets)]
    assert caught == []


def must_fail(url: str, credentials: str, cache: Path, catalog: Any) -> None:
    """Stage with credentials that don't open the source, or a catalog that can't be opened."""
    from prefect_stagegate.flows import stage

    spec = {**SPEC, "dataset": "other", "sources": [{"url": url, "include": ["*.csv"], "credentials": credentials}]}
    with pytest.raises(StagegateError):
        stage(spec, cache=cache, catalog=catalog)


def spoil_block(slug: str, name: str, fields: dict[str, Any]) -> None:
    """Change fields of a stored block, as Prefect's UI lets one do."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import BlockDocumentUpdate

    with get_client(sync_client=True) as client:
        document = client.read_block_document_by_name(name, slug, include_secrets=True)
        client.update_block_document(document.id, BlockDocumentUpdate(data={**document.data, **fields}))
