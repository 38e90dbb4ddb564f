"""Adapters that raise what no adapter may: an object fails, or a listing, by name, and everything else goes on."""

from __future__ import annotations

import logging
import struct
import traceback
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate import doors
from prefect_stagegate.errors import AdapterFailed, SourceUnavailable, StagegateError, TransferFailed
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.upkeep.doctor import examine
from prefect_stagegate.model import LATEST, CredentialLife, SourceObject
from prefect_stagegate.sources import Source, Wanted, everything, open_source
from prefect_stagegate.sources.local.local_source import FileSource
from prefect_stagegate.spec import load_spec
from prefect_stagegate.transport.http import Request, Response
from prefect_stagegate.workspace import Workspace
from tests.support.versions import read_failed, read_manifest

RAISED: tuple[Exception, ...] = (
    ValueError("month must be in 1..12"),
    KeyError("getcontentlength"),
    OverflowError("Python int too large to convert to C long"),
    AssertionError(),
    RecursionError("maximum recursion depth exceeded"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    struct.error("unpack requires a buffer of 4 bytes"),
    zlib.error("Error -3 while decompressing data"),
    StopIteration(),
    NotImplementedError(),
)
METHODS = ("list", "find", "request", "read_into", "renew", "confirm", "disowns_checksums", "credential_life")
ABOUT_ALL = ("list", "renew", "credential_life")
SECRET = "CANARY+token/9f8e7d6c5b4a"


class Brittle(FileSource):
    """A folder of this machine, read by an adapter that raises at some calls, about some objects."""

    def __init__(self, folder: Path, raised: BaseException, *methods: str, key: str = "") -> None:
        super().__init__(f"file://{folder}/")
        self.raised, self.methods, self.key = raised, methods, key

    def _break(self, method: str, key: str = "") -> None:
        if method in self.methods and key in (self.key, ""):
            raise self.raised

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        for source_object in super().list(wanted):
            yield source_object
            self._break("list")

    def find(self, key: str) -> SourceObject:
        self._break("find", key)
        return super().find(key)

    def request(self, listed: SourceObject, start: int, end: int) -> Request | None:
        self._break("request", listed.key)
        return super().request(listed, start, end)

    def explain(self, listed: SourceObject, outcome: Response | Exception) -> StagegateError:
        self._break("explain", listed.key)
        return super().explain(listed, outcome)

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        super().read_into(listed, start, buffer)
        self._break("read_into", listed.key)

    def renew(self, since: float) -> bool:
        self._break("renew")
        return super().renew(since)

    def confirm(self, listed: SourceObject) -> None:
        self._break("confirm", listed.key)
        super().confirm(listed)

    def disowns_checksums(self, listed: SourceObject) -> bool:
        self._break("disowns_checksums", listed.key)
        return super().disowns_checksums(listed)

    def credential_life(self) -> CredentialLife:
        self._break("credential_life")
        return super().credential_life()

    def close(self) -> None:
        self._break("close")
        super().close()


@pytest.fixture
def brittle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Registers an adapter for `brittle://`, and gives its URL; it reads the folder `brittle`."""
    folder = tmp_path / "brittle"
    folder.mkdir()
    for key in "abc":
        (folder / f"{key}.bin").write_bytes(key.encode() * 100)

    def registered(raised: BaseException, *methods: str, key: str = "b.bin") -> str:
        opener = partial(Brittle, folder, raised, *methods, key=key)
        made = doors.Source("brittle", doors.options(credential="token"), ("brittle",), lambda *_: opener())
        monkeypatch.setitem(doors.core_sources(), "brittle", made)
        return "brittle://folder/"

    return registered


def call(source: Source, method: str) -> Any:
    """Call a method of a source about the object `b.bin`."""
    listed = FileSource(source.url).find("b.bin")
    calls: dict[str, Callable[[], Any]] = {
        "list": lambda: list(source.list()),
        "find": lambda: source.find(listed.key),
        "request": lambda: source.request(listed, 0, listed.size),
        "read_into": lambda: source.read_into(listed, 0, memoryview(bytearray(listed.size))),
        "renew": lambda: source.renew(0.0),
        "confirm": lambda: source.confirm(listed),
        "disowns_checksums": lambda: source.disowns_checksums(listed),
        "credential_life": source.credential_life,
    }
    return calls[method]()


@pytest.mark.parametrize("raised", RAISED, ids=lambda error: type(error).__name__)
def test_whatever_is_raised_leaves_as_a_typed_error(raised: Exception, brittle: Callable[..., str]) -> None:
    source = open_source(brittle(raised, *METHODS))
    for method in METHODS:
        with pytest.raises(AdapterFailed) as caught:
            call(source, method)
        error = caught.value
        assert error.source == source.url
        assert error.object == ("" if method in ABOUT_ALL else "b.bin")
        assert type(raised).__name__ in error.message
        assert f"{Brittle.__module__}.Brittle" in error.hint
        assert not error.retryable
        assert raised in (error.__cause__, getattr(error.__cause__, "__cause__", None))


def test_a_broken_connection_may_be_tried_again(brittle: Callable[..., str]) -> None:
    for raised in (ConnectionResetError(104, "Connection reset by peer"), TimeoutError("timed out")):
        with pytest.raises(SourceUnavailable, match=str(raised.args[-1])):
            call(open_source(brittle(raised, "read_into")), "read_into")


@pytest.mark.parametrize(
    "raised", [MemoryError(), KeyboardInterrupt(), SystemExit(3)], ids=lambda error: str(type(error))
)
def test_what_ends_a_process_passes(raised: BaseException, brittle: Callable[..., str]) -> None:
    source = open_source(brittle(raised, *METHODS))
    for method in METHODS:
        with pytest.raises(type(raised)):
            call(source, method)


def test_an_adapter_that_can_t_be_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made = doors.Source("a brittle source", {}, ("brittle",), lambda *_: int("none"))
    monkeypatch.setitem(doors.core_sources(), "brittle", made)
    with pytest.raises(AdapterFailed, match=r"ValueError: invalid literal.*a defect of the adapter for brittle:"):
        open_source("brittle://folder/")


def test_an_explanation_that_fails_is_one(brittle: Callable[..., str]) -> None:
    source = open_source(brittle(ValueError("no such word"), "explain"))
    error = source.explain(source.find("b.bin"), SourceUnavailable("down"))
    assert isinstance(error, AdapterFailed)
    assert (error.source, error.object) == (source.url, "b.bin")
    assert "ValueError: no such word" in error.message


def test_closing_raises_nothing(brittle: Callable[..., str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    source = open_source(brittle(ValueError(SECRET), "close"), credentials={"token": SECRET})
    source.close()
    assert "could not be closed: ValueError: ***" in caplog.text


def test_causes_are_kept_unless_they_tell_a_secret(brittle: Callable[..., str]) -> None:
    harmless, telling = ValueError("bad month"), ValueError(f"bad token {SECRET}")
    with pytest.raises(AdapterFailed) as caught:
        call(open_source(brittle(harmless, "read_into")), "read_into")
    assert caught.value.__cause__ is harmless
    with pytest.raises(AdapterFailed) as caught:
        call(open_source(brittle(telling, "read_into"), credentials={"token": SECRET}), "read_into")
    trace = "".join(traceback.format_exception(caught.value))
    assert "ValueError: bad token ***" in trace
    assert "_break" in trace, "the traceback is lost"
    assert SECRET not in trace + str(caught.value.__context__)


# ── staging ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    """A dataset of two sources, of which the first is brittle."""
    (tmp_path / "sound").mkdir()
    for key in "de":
        (tmp_path / "sound" / f"{key}.bin").write_bytes(key.encode() * 100)
    sources = [{"url": "brittle://folder/"}, {"url": f"file://{tmp_path}/sound/", "into": "sound/"}]
    return {"stagegate": 1, "dataset": "things", "sources": sources}


@pytest.mark.parametrize("method", ["request", "read_into", "confirm"])
def test_one_object_fails_and_the_others_are_staged(
    method: str, brittle: Callable[..., str], spec: dict[str, Any], workspace: Workspace
) -> None:
    brittle(ValueError("month must be in 1..12"), method)
    version = stage(workspace, {**spec, "max_failed_objects": 1})
    assert sorted(entry.path for entry in read_manifest(workspace.catalog, "things", version.digest).entries()) == [
        "a.bin",
        "c.bin",
        "sound/d.bin",
        "sound/e.bin",
    ]
    (failed,) = version.failed
    assert (failed.path, failed.error) == ("b.bin", "AdapterFailed")
    assert "ValueError: month must be in 1..12" in failed.reason
    assert read_failed(workspace.catalog, "things", version.digest) == version.failed


def test_beyond_the_budget_the_object_is_named(
    brittle: Callable[..., str], spec: dict[str, Any], workspace: Workspace
) -> None:
    brittle(ValueError("month must be in 1..12"), "read_into")
    with pytest.raises(TransferFailed, match=r"month must be in 1\.\.12.*report it") as caught:
        stage(workspace, spec)
    (failure,) = caught.value.failures
    assert isinstance(failure, AdapterFailed)
    assert (failure.dataset, failure.object) == ("things", "b.bin")
    assert failure.source.startswith("file://")
    assert workspace.catalog.ref("things", LATEST) is None


def test_a_mirror_gets_its_turn(
    brittle: Callable[..., str], spec: dict[str, Any], workspace: Workspace, tmp_path: Path
) -> None:
    brittle(ValueError("month must be in 1..12"), "read_into")
    spec["sources"][0]["mirrors"] = [{"url": f"file://{tmp_path}/brittle/"}]
    version = stage(workspace, spec)
    assert (version.files, version.failed) == (5, ())


def test_a_broken_mirror_costs_its_objects_only(
    brittle: Callable[..., str], spec: dict[str, Any], workspace: Workspace, tmp_path: Path
) -> None:
    brittle(KeyError("size"), "find", "read_into")
    spec["sources"][0] = {"url": f"file://{tmp_path}/brittle/", "mirrors": [{"url": "brittle://folder/"}]}
    assert stage(workspace, spec).files == 5


def test_a_listing_that_breaks_names_its_source(
    brittle: Callable[..., str], spec: dict[str, Any], workspace: Workspace
) -> None:
    brittle(KeyError("items"), "list")
    with pytest.raises(AdapterFailed, match=r"KeyError: 'items'") as caught:
        stage(workspace, spec)
    assert caught.value.dataset == "things"
    assert caught.value.source
    assert not isinstance(caught.value, TransferFailed)


def test_doctor_tells_of_the_others_too(
    brittle: Callable[..., str], spec: dict[str, Any], workspace: Workspace
) -> None:
    brittle(KeyError("items"), "credential_life")
    broken, sound = examine(load_spec(spec, known_checks={}), workspace.settings, workspace.resolve_credentials)
    assert "KeyError: 'items'" in broken.problem
    assert "report it" in broken.fix
    assert sound.works


def test_the_command_shows_the_chain_when_asked(
    brittle: Callable[..., str], spec: dict[str, Any], workspace: Workspace
) -> None:
    brittle(KeyError("items"), "list")
    with pytest.raises(StagegateError) as caught:
        stage(workspace, spec)
    assert "KeyError: 'items'\n\nThe above exception was the direct cause" in "".join(
        traceback.format_exception(caught.value)
    )
