# ruff: noqa: S101, D102 - these are tests, which assert and whose names say what they show
"""The tests that every source adapter must pass: subclass `SourceContract` in a test module, and pytest runs them.

    class TestMySource(SourceContract):
        @pytest.fixture
        def place(self) -> Iterator[Place]:
            with my_server() as server:
                yield Place("my://…/", options, put=server.write, remove=server.delete)

Set-up bypasses the adapter: `put` and `remove` change the place by other means than the code under test. A class names
the promises that do not apply to it; pytest does not collect their tests:

    class TestMySource(SourceContract, without=("ranges", "credentials")):
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from prefect_stagegate.cache.memory import is_racy
from prefect_stagegate.errors import (
    AccessDenied,
    ObjectChanged,
    ObjectVanished,
    SourceError,
    SourceUnavailable,
    UsageError,
)
from prefect_stagegate.model import SourceObject
from prefect_stagegate.model.manifest import path_problem
from prefect_stagegate.sources import Source, Wanted, everything, open_source

BYTES = bytes(range(256)) * 40
"""What most of the objects here hold."""
KEYS = ("a.bin", "folder/b.bin", "folder/deep/er/c.bin", "sp ace é % + & = # @ ~ ( ) !.bin")
ODD = (
    *(
        f"odd {sign}.bin"
        for sign in ("é", "#", "%", "+", "?", "&", "*", "[x]", "{x}", "\\", '"', "'", ";", "<", "|", ":")
    ),
    *("odd %41.bin", "odd ?a=1.bin", "odd %2e%2e.bin", "odd\nline.bin", "odd\ttab.bin", "-odd", "~odd", "odd "),
)
"""Names that some clients cut, decode, expand or refuse."""
UNFORESEEN: tuple[Exception, ...] = (
    ValueError("month must be in 1..12"),
    KeyError("items"),
    OverflowError("int too large to convert"),
    AssertionError("unreachable"),
    RecursionError("maximum recursion depth exceeded"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    struct.error("unpack requires a buffer of 4 bytes"),
    zlib.error("Error -3 while decompressing data"),
)
"""Exceptions that libraries raise and do not document."""
_NO_MACHINE_CREDENTIALS = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AZURE_TOKEN_CREDENTIALS": "dev",
    "NO_GCE_CHECK": "true",
}
"""Variables that keep clients from the credentials of the machine that they run on."""
ABSENT = ("AWS_", "AZURE_", "GOOGLE_", "HF_", "PG", "PYICEBERG_", "SSH")
"""Prefixes of variables that may hold credentials."""


@dataclass(frozen=True)
class Place:
    """A place that holds objects, empty at first, and the means to change it."""

    url: str
    """Ends with a slash."""
    options: Mapping[str, Any] = field(default_factory=dict)
    put: Callable[[str, bytes], Any] = lambda key, data: None  # noqa: ARG005
    """Write an object, over one that may be there."""
    remove: Callable[[str], Any] = lambda key: None  # noqa: ARG005
    denied: Mapping[str, Any] | None = None
    """Options with credentials that the place refuses; required unless the contract is `without` credentials."""
    anonymous: Mapping[str, Any] | None = None
    """Options without credentials, which the place refuses; required as `denied` is."""
    lacks: str = ""
    """Characters that no name here can have, or that `put` or the server turns into others."""
    unreachable: tuple[str, Mapping[str, Any]] | None = None
    """URL and options of such a server that does not answer; required unless the contract is `without` servers."""
    frozen: bool = False
    """Whether files here never change by promise, so that the adapter notices only a change of size."""
    keeps: bool = False
    """Whether the place keeps old states, as a history of commits does: what was listed can be read for ever."""
    variants: Collection[Mapping[str, Any]] = ()
    """Further options, each of which gives objects other bytes, such as an encoding or another server."""
    library: tuple[str, str] = ("", "")
    """Dotted names of the library's functions that list and read; empty for the adapter's own methods."""


def listed(source: Source, wanted: Wanted = everything) -> dict[str, SourceObject]:
    """The wanted objects of a source's listing, by key; fails when a key comes twice."""
    objects: dict[str, SourceObject] = {}
    for source_object in source.list(wanted):
        assert source_object.key not in objects, f"{source_object.key} was listed twice"
        objects[source_object.key] = source_object
    return objects


def _listed_or_refused(source: Source, left_out: set[str]) -> dict[str, SourceObject] | str:
    """The listing without some keys, or the key that the source refuses."""
    try:
        return listed(source, lambda key: key not in left_out)
    except SourceError as error:
        return error.object


def read(source: Source, source_object: SourceObject, start: int = 0, end: int | None = None) -> bytes:
    """Read an object's bytes as a blocking transfer does, with `confirm` at the end."""
    buffer = bytearray((source_object.size if end is None else end) - start)
    source.read_into(source_object, start, memoryview(buffer))
    source.confirm(source_object)
    return bytes(buffer)


@contextmanager
def broken(patch: pytest.MonkeyPatch, source: Source, method: str, function: str, raised: Exception) -> Iterator[None]:
    """Have a library's function, or an adapter's method, raise an error in the block.

    Where no function is named by its dotted name, the method of the adapter's class is changed.
    """

    def breaks(*_: Any, **__: Any) -> None:
        raise raised

    with patch.context() as patched:
        if function:
            patched.setattr(function, breaks)
        else:
            patched.setattr(type(source._source), method, breaks)  # type: ignore[attr-defined] # noqa: SLF001
        yield


CONDITIONAL = {
    "single objects": ("test_a_url_may_name_one_object",),
    "bare folders": ("test_a_folder_may_be_named_without_its_slash",),
    "ranges": ("test_ranges_end_before_their_end",),
    "credentials": (
        "test_refused_credentials_are_told_and_not_repeated",
        "test_without_credentials_it_is_told_what_to_set",
    ),
    "servers": ("test_a_server_that_does_not_answer_may_be_asked_again",),
    "libraries": ("test_whatever_a_library_raises_names_source_and_object",),
}
"""Features that some places don't have, with their tests. A table's URL names the whole table, so it has no single
objects and no bare folders. A local folder is read by the operating system, whose only errors are of `OSError`."""


class SourceContract:
    """The promises of `Source`, as tests.

    Raises:
        TypeError: A class is `without` a feature that `CONDITIONAL` does not list.
    """

    without: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, *, without: Collection[str] = (), **settings: Any) -> None:
        """Remove the tests of features that the place doesn't have."""
        super().__init_subclass__(**settings)
        if unknown := set(without) - CONDITIONAL.keys():
            raise TypeError(f"{cls.__name__} is without {sorted(unknown)}; known: {', '.join(CONDITIONAL)}")
        cls.without = cls.without | frozenset(without)
        for name in (test for promise in without for test in CONDITIONAL[promise]):
            setattr(cls, name, None)  # which pytest does not collect

    @pytest.fixture
    def place(self) -> Place:
        """The place under test; every adapter's test defines it."""
        raise NotImplementedError

    def test_every_object_is_listed_with_its_size(self, place: Place) -> None:
        for number, key in enumerate(KEYS):
            place.put(key, BYTES[:number])
        objects = listed(open_source(place.url, place.options))
        assert {key: source_object.size for key, source_object in objects.items()} == {
            key: number for number, key in enumerate(KEYS)
        }

    def test_listed_objects_read_as_they_were_written(self, place: Place) -> None:
        for key in KEYS:
            place.put(key, key.encode() + BYTES)
        source = open_source(place.url, place.options)
        assert {key: read(source, source_object) for key, source_object in listed(source).items()} == {
            key: key.encode() + BYTES for key in KEYS
        }

    def test_odd_names_hide_no_other_and_are_read_as_they_are_or_refused_by_name(self, place: Place) -> None:
        names = {name for name in ODD if not set(name) & set(place.lacks)}
        for name in names:
            place.put(name, name.encode())
        source, refused = open_source(place.url, place.options), set[str]()
        while isinstance(outcome := _listed_or_refused(source, refused), str):
            assert outcome in names - refused, f"none of the names is told: {outcome!r}"
            refused.add(outcome)
        assert outcome.keys() == names - refused, f"listed otherwise: {outcome.keys() ^ (names - refused)}"
        # What no dataset may have is listed, so that `exclude` can name it, and never read.
        usable = [source_object for name, source_object in outcome.items() if not path_problem(name)]
        assert [read(source, source_object) for source_object in usable] == [
            source_object.key.encode() for source_object in usable
        ]

    def test_an_option_that_is_not_declared_is_refused(self, place: Place) -> None:
        with pytest.raises(UsageError, match="'undeclared' is no option of"):
            open_source(place.url, {**place.options, "undeclared": 1})

    def test_only_what_is_wanted_is_listed(self, place: Place) -> None:
        place.put("a.bin", BYTES)
        place.put("b.txt", BYTES)
        wanted = open_source(place.url, place.options).list(lambda key: key.endswith(".txt"))
        assert [source_object.key for source_object in wanted] == ["b.txt"]

    def test_a_url_may_name_one_object(self, place: Place) -> None:
        place.put("folder/b.bin", BYTES)
        place.put("folder/b.bin.more", b"")
        source = open_source(place.url + "folder/b.bin", place.options)
        (source_object,) = source.list()
        assert (source_object.key, read(source, source_object)) == ("b.bin", BYTES)
        assert read(open_source(place.url + "folder/b.bin", place.options), source_object) == BYTES

    def test_a_folder_may_be_named_without_its_slash(self, place: Place) -> None:
        place.put("folder/b.bin", BYTES)
        place.put("folder-2/c.bin", BYTES)
        assert list(listed(open_source(place.url + "folder", place.options))) == ["b.bin"]

    def test_a_folder_that_is_not_there_is_an_error(self, place: Place) -> None:
        place.put("folder/b.bin", BYTES)
        with pytest.raises(SourceError):
            list(open_source(place.url + "fodler/", place.options).list())

    def test_ranges_end_before_their_end(self, place: Place) -> None:
        place.put("a.bin", BYTES)
        source = open_source(place.url, place.options)
        source_object = listed(source)["a.bin"]
        for start, end in ((0, 1), (1, 7), (len(BYTES) - 3, len(BYTES)), (0, len(BYTES))):
            assert read(source, source_object, start, end) == BYTES[start:end]

    def test_a_buffer_is_filled_with_what_is_read_and_no_further(self, place: Place) -> None:
        place.put("a.bin", BYTES)
        source = open_source(place.url, place.options)
        source_object = listed(source)["a.bin"]
        start = 0 if "ranges" in self.without else 7
        count = len(BYTES) - start
        buffer = bytearray(b"#" * (count + 5))
        source.read_into(source_object, start, memoryview(buffer)[:count])
        assert buffer == BYTES[start:] + b"#" * 5

    def test_an_empty_object_is_read(self, place: Place) -> None:
        place.put("empty", b"")
        source = open_source(place.url, place.options)
        source_object = listed(source)["empty"]
        assert (source_object.size, read(source, source_object)) == (0, b"")

    def test_a_pin_stays_while_the_object_does(self, place: Place) -> None:
        place.put("a.bin", BYTES)
        pins = {listed(open_source(place.url, place.options))["a.bin"].pin for _ in range(2)}
        assert len(pins) == 1
        assert open_source(place.url, place.options).find("a.bin").pin in pins

    def test_a_pin_is_remembered(self, place: Place) -> None:
        place.put("a.bin", BYTES)
        (source_object,) = list(open_source(place.url, place.options).list())
        # As a staging does that begins when the object is no longer young.
        assert not is_racy(source_object, time.time() + 3600), (
            "each staging reads it again: a weak pin needs `modified`, in seconds since the epoch"
        )

    def test_an_object_that_changed_after_it_was_listed_is_not_read(self, place: Place) -> None:
        place.put("a.bin", BYTES)
        source = open_source(place.url, place.options)
        source_object = listed(source)["a.bin"]
        # A weak pin may miss a change within its grain of time, but not one of the size.
        strong = source_object.pin.strength == "strong" and not place.frozen
        place.put("a.bin", BYTES[::-1] if strong else BYTES * 2)
        if place.keeps:
            assert read(source, source_object) == BYTES
        else:
            with pytest.raises(ObjectChanged):
                read(source, source_object)
        assert read(source, source.find("a.bin")) != BYTES

    def test_an_object_that_is_gone_is_named(self, place: Place) -> None:
        place.put("a.bin", BYTES)
        place.put("b.bin", BYTES)
        source = open_source(place.url, place.options)
        source_object = listed(source)["a.bin"]
        place.remove("a.bin")
        if place.keeps:
            assert read(source, source_object) == BYTES
        else:
            with pytest.raises(ObjectVanished) as caught:
                read(source, source_object)
            assert caught.value.object == "a.bin"
        with pytest.raises(ObjectVanished):
            source.find("a.bin")

    def test_many_threads_read_at_once(self, place: Place) -> None:
        for number in range(20):
            place.put(f"{number}.bin", bytes([number]) * 1000)
        source = open_source(place.url, place.options)
        objects = sorted(listed(source).values(), key=lambda source_object: int(source_object.key.removesuffix(".bin")))
        with ThreadPoolExecutor(8) as pool:
            contents = list(pool.map(lambda source_object: read(source, source_object), objects * 3))
        assert contents == [bytes([number]) * 1000 for number in range(20)] * 3

    def test_refused_credentials_are_told_and_not_repeated(self, place: Place) -> None:
        assert place.denied is not None, "give `denied`, or leave credentials out"
        place.put("a.bin", BYTES)
        with pytest.raises(AccessDenied) as caught:
            list(open_source(place.url, place.denied).list())
        assert caught.value.hint
        assert not any(str(secret) in str(caught.value) for name, secret in place.denied.items() if name == "secret")

    def test_without_credentials_it_is_told_what_to_set(
        self, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert place.anonymous is not None, "give `anonymous`, or leave credentials out"
        place.put("a.bin", BYTES)
        for name in [name for name in os.environ if name.startswith(ABSENT)]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
        for name, value in _NO_MACHINE_CREDENTIALS.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(AccessDenied) as caught:
            list(open_source(place.url, place.anonymous).list())
        assert caught.value.hint

    def test_a_server_that_does_not_answer_may_be_asked_again(self, place: Place) -> None:
        assert place.unreachable is not None, "give `unreachable`, or leave servers out"
        url, options = place.unreachable
        with pytest.raises(SourceUnavailable) as caught:
            list(open_source(url, options).list())
        assert caught.value.retryable

    def test_whatever_a_library_raises_names_source_and_object(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place.put("a.bin", BYTES)
        for raised in UNFORESEEN:
            source = open_source(place.url, place.options)
            source_object = listed(source)["a.bin"]
            with broken(monkeypatch, source, "list", place.library[0], raised), pytest.raises(SourceError) as caught:
                listed(open_source(place.url, place.options))
            assert source.url.startswith(caught.value.source or "no source")  # a bucket, where that is a folder
            with (
                broken(monkeypatch, source, "read_into", place.library[1], raised),
                pytest.raises(SourceError) as caught,
            ):
                read(source, source_object)
            assert source.url.startswith(caught.value.source or "no source")
            assert caught.value.object == "a.bin"
            source.close()

    def test_what_people_see_holds_no_credentials(self, place: Place) -> None:
        source = open_source(place.url, place.options)
        secrets = [str(value) for name, value in place.options.items() if name in ("key", "secret", "token")]
        assert not any(secret in source.url + source.identity for secret in secrets)

    def test_identities_tell_places_apart(self, place: Place) -> None:
        place.put("folder/a.bin", BYTES)
        whole, part = (open_source(url, place.options).identity for url in (place.url, place.url + "folder/"))
        assert whole != part
        assert whole == open_source(place.url, place.options).identity

    def test_options_that_change_bytes_change_the_identity(self, place: Place) -> None:
        variants = [place.options, *({**place.options, **options} for options in place.variants)]
        assert len({open_source(place.url, options).identity for options in variants}) == len(variants)
