"""What a node learns of pins from the version that was staged last, and what that version must not teach it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.doors import Source, core_sources, options, register
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.staging.stage import preview, stage
from prefect_stagegate.model import Pin, SourceObject
from prefect_stagegate.spec import Spec, load_spec
from prefect_stagegate.workspace import Workspace
from tests.support.scripted import ScriptedSource
from tests.support.versions import read_manifest

LATIN, GREEK = {"script": "latin"}, {"script": "greek"}


class Shelf(ScriptedSource):
    """One book, which an option renders in other bytes, and whose pin counts editions."""

    def __init__(self, url: str, options: dict[str, Any], terms: object) -> None:  # noqa: ARG002
        script = str(options.get("script", "latin"))
        super().__init__({"book": script.encode()}, url=url)
        self.identity = f"{url}?{script}"

    def find(self, key: str) -> SourceObject:
        """The book in its only edition."""
        return SourceObject(key, len(self.objects[key]), Pin("edition", "1", "strong"))


@pytest.fixture(autouse=True)
def _shelves() -> Iterator[None]:
    before = dict(core_sources())
    register(Source("a shelf", options(value="script shade"), ("shelf",), Shelf))
    yield
    core_sources().clear()
    core_sources().update(before)


@pytest.fixture
def other(workspace: Workspace, tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "other-cache", tmp_path / "catalog")


def spec_of(*sources: dict[str, Any], **more: Any) -> Spec:
    listed = [{"url": "shelf://a/", "into": f"{number}/"} | source for number, source in enumerate(sources)]
    return load_spec({"stagegate": 1, "dataset": "books", "sources": listed, **more}, known_checks={})


def learnt(node: Workspace, spec: Spec) -> list[str]:
    """The digests that a node plans by, without having read anything."""
    return [planned.digest for planned in preview(node, spec) if planned.digest]


def test_another_node_learns_pins(workspace: Workspace, other: Workspace) -> None:
    version = stage(workspace, spec_of({"options": LATIN}))
    (entry,) = read_manifest(workspace.catalog, "books", version.digest).entries()
    # What the spec says beside the source's place changes nothing about its bytes.
    assert learnt(other, spec_of({"options": LATIN, "rehash": "when_weak"}, license="CC0-1.0")) == [entry.digest]


def test_changed_option_brings_its_own_bytes(workspace: Workspace) -> None:
    stage(workspace, spec_of({"options": LATIN}))
    version = stage(workspace, spec_of({"options": GREEK}))
    assert (version.path / "0/book").read_bytes() == b"greek"


@pytest.mark.parametrize(
    "change", [{"options": GREEK}, {"options": LATIN | {"shade": "dark"}}, {"credentials": "aws-credentials/other"}]
)
def test_source_elsewhere_teaches_nothing(workspace: Workspace, other: Workspace, change: dict[str, Any]) -> None:
    stage(workspace, spec_of({"options": LATIN}))
    object.__setattr__(other, "resolve_credentials", lambda _: {})
    assert learnt(other, spec_of({"options": LATIN} | change)) == []


def test_sources_of_one_url_teach_their_own_pins(workspace: Workspace, other: Workspace) -> None:
    version = stage(workspace, spec_of({"options": LATIN}, {"options": GREEK}))
    digests = [entry.digest for entry in read_manifest(workspace.catalog, "books", version.digest).entries()]
    assert len(set(digests)) == 2
    assert learnt(other, spec_of({"options": LATIN}, {"options": GREEK})) == digests
    # In another order, and the source of the first position is the second one now.
    third = open_workspace(other.cache.root.parent / "third-cache", other.cache.root.parent / "catalog")
    assert learnt(third, spec_of({"options": GREEK}, {"options": LATIN})) == digests[::-1]


@pytest.mark.parametrize("spec", ["", "{", '"sources": "none"', '"sources": ["shelf://a/"]', '"sources": [{"url": 1}]'])
def test_spec_that_cannot_be_read_teaches_nothing(
    workspace: Workspace, other: Workspace, tmp_path: Path, spec: str
) -> None:
    version = stage(workspace, spec_of({"options": LATIN}))
    (stored,) = (tmp_path / "catalog/datasets/books/specs").rglob("*.json")
    stored.chmod(0o644)
    stored.write_text(f'{{"version": "{version.digest}", "spec": {{{spec}}}}}')
    assert learnt(other, spec_of({"options": LATIN})) == []
