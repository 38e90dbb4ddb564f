"""`stagegate doctor` on sources that work and sources that do not, on real servers."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.testing.servers import SeaweedFS

Run = Callable[..., subprocess.CompletedProcess[str]]
PAGE = (Path(__file__).parents[2] / "docs/sources.md").read_text()
NOBODY = "127.0.0.1:1"
"""A port that nobody listens on."""


@pytest.fixture
def env(tmp_path: Path, seaweedfs: SeaweedFS) -> dict[str, str]:
    """A user's AWS files with a good profile and one whose secret is wrong."""
    profiles = [("default", seaweedfs.secret), ("typo", "this-is-not-the-secret")]
    lines = (
        f"[{name}]\naws_access_key_id={seaweedfs.key}\naws_secret_access_key={secret}" for name, secret in profiles
    )
    (tmp_path / "credentials").write_text("\n".join(lines))
    return {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")}


@pytest.fixture
def sources(tmp_path: Path, seaweedfs: SeaweedFS) -> list[dict[str, Any]]:
    bucket = seaweedfs.bucket(f"lake-{sum(tmp_path.name.encode())}")
    here = {"endpoint_url": seaweedfs.endpoint_url}
    seaweedfs.client().pipe({f"{bucket}/flights/2013-01.parquet": b"x" * 100_000, f"{bucket}/flights/notes.txt": b"x"})
    for name, size in (("flights/2013-01.parquet", 100_000), ("reference/planes.csv", 20_000)):
        (tmp_path / "nas" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "nas" / name).write_bytes(b"x" * size)
    mirrors = [{"url": "nas/flights/"}]
    return [
        {"url": f"{bucket}/flights/", "include": ["*.parquet"], "options": here, "mirrors": mirrors},
        {"url": "nas/reference/", "into": "reference/"},
        {"url": f"{bucket}/weather/", "into": "weather/", "options": {**here, "profile": "typo"}},
        {"url": "s3://laek/airports/", "into": "airports/", "options": here},
        {"url": "s3://lake/delays/", "into": "delays/", "options": {"endpoint_url": f"http://{NOBODY}"}},
    ]


def a_spec(folder: Path, sources: list[dict[str, Any]]) -> Path:
    file = folder / "things.yaml"
    file.write_text(json.dumps({"stagegate": 1, "dataset": "things", "sources": sources}))
    return file


def test_each_broken_source_is_one_line_that_says_what_to_do(
    tmp_path: Path, run_stagegate: Run, env: dict[str, str], sources: list[dict[str, Any]], seaweedfs: SeaweedFS
) -> None:
    done = run_stagegate("doctor", a_spec(tmp_path, sources), env=env)
    assert done.returncode == 3, done.stderr
    lines = done.stdout.splitlines()
    assert [line[:5] for line in lines] == ["works"] * 3 + ["FAILS"] * 3 + ["3 of "]
    assert "as a static access key: pins by etag, strong" in lines[0]
    assert "read 65.5 kB of 2013-01.parquet" in lines[0]
    assert "(a mirror of s3://" in lines[1]
    assert "pins by mtime, weak" in lines[2]
    for line, problem in zip(lines[3:6], ("secret doesn't belong to", "s3://laek/", NOBODY), strict=True):
        assert "a static access key: " in line
        assert problem in line
    assert " as the profile typo, a static access key: " in lines[3]
    assert "this-is-not-the-secret" not in done.stdout + done.stderr
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "catalog").exists()
    shown = PAGE.split("$ stagegate doctor flights.yaml\n")[1].split("```")[0].splitlines()
    assert [shape(line) for line in shown] == [shape(line) for line in lines]


def test_doctor_judges_an_empty_source_as_staging_does(tmp_path: Path, run_stagegate: Run) -> None:
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas/a.csv").write_text("x\n1\n")
    sources: list[dict[str, Any]] = [{"url": "nas/"}, {"url": "nas/", "include": ["*.pq"], "into": "b/"}]
    for allowed, code in ((False, 3), (True, 0)):
        sources[1]["may_be_empty"] = allowed
        spec = a_spec(tmp_path, sources)
        examined = run_stagegate("doctor", spec)
        assert examined.returncode == code, examined.stdout
        assert "no object" in examined.stdout.splitlines()[1]
        staged = run_stagegate("stage", spec, "--dry-run", "--cache", tmp_path / "cache", "--catalog", tmp_path / "cat")
        assert staged.returncode == (0 if allowed else 2), staged.stderr
        assert allowed or "selects no object" in staged.stderr


def shape(line: str) -> str:
    """A line without what is another one each time: places, figures."""
    line = re.sub(r"\b(file|s3|http)://\S*?(?=[):,.]?(\s|$))", "URL", line)
    return re.sub(r"[0-9]+(\.[0-9]+)?", "N", line)


def test_programs_get_the_same_and_working_sources_pass(
    tmp_path: Path, run_stagegate: Run, env: dict[str, str], sources: list[dict[str, Any]]
) -> None:
    spec = a_spec(tmp_path, sources[:2])
    done = run_stagegate("doctor", spec, "--json", env=env)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["works"], row["pin"], row["problem"]) for row in rows] == [
        (True, "etag, strong", ""),
        (True, "mtime, weak", ""),
        (True, "mtime, weak", ""),
    ]
    assert rows[0]["list_seconds"] > 0
    assert run_stagegate("stage", spec, env=env).returncode == 0
    assert run_stagegate("doctor", "things@latest", env=env).stdout.endswith("3 of 3 work.\n")


def test_a_dataset_of_a_catalog_that_is_not_there_begins_none(tmp_path: Path, run_stagegate: Run) -> None:
    done = run_stagegate("doctor", "things")
    assert (done.returncode, "There is no catalog at" in done.stderr) == (3, True), done.stderr
    assert not (tmp_path / "catalog").exists()


def test_a_server_that_says_nothing_is_waited_for_only_so_long(tmp_path: Path, run_stagegate: Run) -> None:
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas/a.csv").write_text("a")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        options = {"endpoint_url": f"http://{host}", "anon": True}
        spec = a_spec(tmp_path, [{"url": "s3://lake/", "options": options}, {"url": "nas/", "into": "nas/"}])
        done = run_stagegate("doctor", spec, "--timeout", "2")
    assert done.returncode == 3
    first, second, _ = done.stdout.splitlines()
    assert "It did not answer within 2 s. Check whether the server is well" in first
    assert second.startswith("works")
