# ruff: noqa: PTH100, PTH103, PTH118, PTH120, PTH123
"""Names that somebody chose to do harm: each is staged as it is or refused by its name, and none does anything else.

A generator with a fixed seed makes them. They go through real directories, a real S3 server, a server that lies in its
listing, and whatever writes names for people.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree as ET

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.errors import StagegateError, UsageError
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.upkeep.verify import verify
from prefect_stagegate.model import Version
from prefect_stagegate.model.manifest import Seal, path_problem, row
from prefect_stagegate.testing.servers import SeaweedFS
from prefect_stagegate.workspace import Workspace
from tests.support.hostile_names import BATCHES, NAMES, acting, report_about
from tests.support.http_servers import Handler, http_server
from tests.support.renderings import to_markdown, to_rich, to_text
from tests.support.versions import put_version, read_manifest


def test_the_generator_gives_enough_of_each_kind() -> None:
    refused = [name for name in NAMES if path_problem(name)]
    assert len(NAMES) >= 500
    assert min(len(refused), len(NAMES) - len(refused)) >= 150


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "node" / "cache", tmp_path / "node" / "catalog")


def stage_what_may(workspace: Workspace, source: dict[str, Any], keys: set[str]) -> tuple[Version, set[str]]:
    """Stage a source; whenever objects are refused by their names, leave those out and try again.

    Returns the version and the keys that were refused.
    """
    refused: set[str] = set()
    for _ in range(len(keys)):
        exclude = [*source.get("exclude", ()), *map(as_glob, refused)]
        spec = {"stagegate": 1, "dataset": "odd", "sources": [{**source, "exclude": exclude}]}
        try:
            return stage(workspace, spec), refused
        except UsageError as error:
            message, text, hint = error.message, str(error), error.hint
        assert hint
        assert text.isprintable()
        named_keys = {key for key in keys - refused if repr(key) in message}
        assert named_keys, f"none of the names is in: {text}"
        refused |= named_keys
    raise AssertionError("it is refused whatever is left out")


def as_glob(key: str) -> str:
    """A pattern for this key, as specs may have it: what can't be written in one becomes a `?`, or a `*`."""
    segments = ["".join(c if c.isalnum() and c.isascii() else "?" for c in part) or "*" for part in key.split("/")]
    return "/".join(segments)


def check_version(workspace: Workspace, version: Version, contents: dict[str, bytes]) -> None:
    """The view, the manifest and the catalog hold exactly these entries."""
    entries = {entry.path: entry for entry in read_manifest(workspace.catalog, "odd", version.digest).entries()}
    assert entries.keys() == contents.keys()
    paths = {
        os.path.relpath(os.path.join(folder, name), version.path)
        for folder, _, files in os.walk(version.path)
        for name in files
    }
    assert paths == contents.keys()
    assert {path: (version.path / path).read_bytes() for path in paths} == contents
    lines = b"".join(map(row, entries.values())).split(b"\n")
    assert len(lines) == len(contents) + 1
    assert all(line.count(b"\0") == 2 for line in lines[:-1])
    assert not verify(workspace).damaged


def everything_below(folder: Path) -> set[str]:
    return {os.path.join(parent, name) for parent, folders, files in os.walk(folder) for name in (*folders, *files)}


def test_names_in_a_directory(tmp_path: Path, workspace: Workspace) -> None:
    root = tmp_path / "source" / "data"
    contents = write_all(root, NAMES)
    assert len(contents) >= 500
    outside = everything_below(tmp_path) - everything_below(tmp_path / "node")

    version, refused = stage_what_may(workspace, {"url": str(root)}, set(contents))

    assert refused == {key for key in contents if path_problem(key)}
    check_version(workspace, version, {key: data for key, data in contents.items() if key not in refused})
    assert everything_below(tmp_path) - everything_below(tmp_path / "node") == outside


def write_all(root: Path, names: list[str]) -> dict[str, bytes]:
    """Make a file of each name, in a folder of its own, and return what a user of the directory finds there then."""
    for number, name in enumerate(names):
        folder = os.fsencode(root / str(number))
        with suppress(OSError, ValueError):  # the volume takes no such name
            raw = name.encode("utf-8", "surrogatepass" if "\ud800" in name else "surrogateescape").lstrip(b"/")
            path = os.path.abspath(os.path.join(folder, raw))
            if path.startswith(folder + b"/"):
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "xb") as file:
                    file.write(b"%d" % number)
    return {
        os.path.relpath(os.path.join(folder, name), root): Path(folder, name).read_bytes()
        for folder, _, files in os.walk(root)
        for name in files
    }


def test_names_in_a_bucket(seaweedfs: SeaweedFS, botocore_client: Any, workspace: Workspace, tmp_path: Path) -> None:
    seaweedfs.bucket("hostile-names")
    client = botocore_client

    def put(number: int) -> None:
        with suppress(Exception):  # the server, or its client, refuses such a key
            client.put_object(Bucket="hostile-names", Key=f"{number}/{NAMES[number]}", Body=b"%d" % number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(len(NAMES))))
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="hostile-names")
    keys = {entry["Key"] for page in pages for entry in page["Contents"] if not entry["Key"].endswith("/")}
    assert len(keys) >= 500
    before = everything_below(tmp_path) - everything_below(tmp_path / "node")

    source = {"url": "s3://hostile-names/", "options": {"endpoint_url": seaweedfs.endpoint_url}}
    refused = {key for key in keys if path_problem(key)}
    with credentials(seaweedfs):
        with pytest.raises(UsageError, match=r"\d+ objects can't be in a dataset"):
            stage(workspace, {"stagegate": 1, "dataset": "odd", "sources": [source]})
        version, others = stage_what_may(workspace, {**source, "exclude": [*map(as_glob, refused)]}, keys - refused)

    assert not others
    check_version(workspace, version, {key: key.partition("/")[0].encode() for key in keys - refused})
    assert everything_below(tmp_path) - everything_below(tmp_path / "node") == before


@contextmanager
def credentials(server: SeaweedFS) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", server.key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", server.secret)
        yield


class LyingServer(Handler):
    """Lists every key that XML can hold, whatever it is, and gives each object its own key as content."""

    keys: tuple[str, ...] = ()
    requested: set[str] = set()  # noqa: RUF012

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if "list-type" in query:
            after = query.get("start-after", "")
            self.answer(200, self.listing([key for key in self.keys if key > after], query.get("encoding-type", "")))
            return
        key = unquote(url.path.removeprefix("/lies/"))
        self.requested.add(key)
        self.answer(200 if key in self.keys else 404, key.encode() if key in self.keys else b"")

    do_HEAD = do_GET

    def listing(self, keys: list[str], encoding: str) -> bytes:
        root = ET.Element("ListBucketResult")
        for name, value in (("IsTruncated", "false"), ("EncodingType", encoding), ("KeyCount", str(len(keys)))):
            ET.SubElement(root, name).text = value
        for key in keys:
            contents = ET.SubElement(root, "Contents")
            facts = {"Key": quote(key) if encoding else key, "Size": str(len(key.encode())), "ETag": '"e"'}
            for name, value in {**facts, "LastModified": "2026-03-01T03:00:00.000Z"}.items():
                ET.SubElement(contents, name).text = value
        return ET.tostring(root)

    def answer(self, status: int, body: bytes) -> None:
        start, _, end = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        headers = {"ETag": '"e"', "Last-Modified": "Sun, 01 Mar 2026 03:00:00 GMT"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
            body, status = body[int(start) : int(end) + 1], 206 if status == 200 else status
        self.respond(status, body, headers)


def test_keys_that_climb_out_are_refused_and_hide_no_others(tmp_path: Path, workspace: Workspace) -> None:
    climbing = {"..", "../up", "a/../../up", "a/./b", "./x", "a//b", "x/..", "a/\u202e/../b"}
    honest = {"good.bin", "a/b", "z/\u202egpj.exe", "caf\u00e9"}
    keys = tuple(sorted(climbing | honest))
    requested: set[str] = set()
    with http_server(type("Handler", (LyingServer,), {"keys": keys, "requested": requested})) as url:
        source = {"url": "s3://lies/", "options": {"endpoint_url": url, "anon": True}}
        version, refused = stage_what_may(workspace, source, set(keys))
    assert refused == climbing
    check_version(workspace, version, {key: key.encode() for key in honest})
    assert not requested & climbing


def test_a_manifest_that_climbs_out_of_its_view_is_refused(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_bytes(b"a")
    version = stage(workspace, {"stagegate": 1, "dataset": "odd", "sources": [{"url": str(tmp_path / "source")}]})
    (entry,) = read_manifest(workspace.catalog, "odd", version.digest).entries()
    for path in ("../climbed", "/tmp/climbed", "a\nb"):
        forged = type(entry)(path, entry.size, entry.digest)
        with pytest.raises(StagegateError, match=r"can't be in a view"):
            workspace.cache.views.publish("odd", "sha256:" + "f" * 64, [forged])
        with pytest.raises(StagegateError, match=r"can't be in a view"), workspace.cache.views.draft() as draft:
            draft.repair("odd", version.digest, [forged])
        with pytest.raises(StagegateError, match="that is not allowed in a dataset"):
            list(forged_manifest(workspace.catalog, forged))
    assert not list(tmp_path.rglob("climbed"))


def forged_manifest(catalog: Catalog, entry: Any) -> Iterator[Any]:
    """A manifest whose digest fits, as somebody who may write to the catalog can make it."""
    import hashlib

    digest = "sha256:" + hashlib.sha256(row(entry)).hexdigest()
    put_version(catalog, "odd", Seal(digest, 1, entry.size), [entry], [])
    return read_manifest(catalog, "odd", digest).entries()


# ── what people read ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("names", BATCHES, ids=range(len(BATCHES)))
def test_reports_have_the_shape_that_harmless_names_give_them(names: list[str]) -> None:
    hostile, harmless = report_about(names), report_about([f"name{number}" for number in range(len(names))])

    assert marks(to_markdown(hostile)) == marks(to_markdown(harmless))
    assert len(to_text(hostile).split("\n")) == len(to_text(harmless).split("\n"))
    for text in (to_text(hostile), terminal(hostile), to_markdown(hostile)):
        assert not acting(text)


def marks(text: str) -> list[str]:
    """What a renderer makes of the text: its blocks, and what in them is a link, an image or a tag."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    inline = (child.type for token in tokens for child in token.children or ())
    active = [kind for kind in inline if kind in ("link_open", "image", "html_inline", "strong_open", "em_open")]
    return [token.type for token in tokens] + active


def terminal(report: Any) -> str:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    console.print(to_rich(report), crop=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_commands_write_no_name_that_acts_on_a_terminal(tmp_path: Path, run_stagegate: Any) -> None:
    source = tmp_path / "data"
    files = len(write_all(source, [name for name in NAMES if not path_problem(name)]))
    assert files >= 150
    spec = tmp_path / "odd.yaml"
    spec.write_text(f"stagegate: 1\ndataset: odd\nsources: [{{url: {source}}}]")
    commands: list[list[str | Path]] = [["stage", spec], ["show", "odd", "--all"]]
    results = [run_stagegate(*command) for command in commands]
    assert [(result.returncode, result.stderr) for result in results] == [(0, "")] * len(commands)
    (source / "\x1b[2Jcleared\n\u202egpj.exe").touch()
    refused = run_stagegate("stage", spec)
    assert refused.returncode == 2
    for result in (*results, refused):
        written = result.stdout + result.stderr
        assert not acting(written)
    assert len(results[1].stdout.splitlines()) == files + 3  # name, figures, weakest pin
