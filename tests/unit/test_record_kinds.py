"""Records of a kind that another package declares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from prefect_stagegate.catalog import Catalog
from prefect_stagegate.catalog.log import Log
from prefect_stagegate.catalog.version_records import dataset_names
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.doors import Record
from prefect_stagegate.errors import CatalogError, CorruptRecord
from prefect_stagegate.model import Identity

DIGEST = "sha256:" + "a" * 64


@dataclass(frozen=True)
class Scores:
    model: str
    scores: list[float]


SCORES = Record("acme.scores", Scores)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.open(str(tmp_path / "catalog"))


def test_records_come_back_as_they_were_stored(catalog: Catalog) -> None:
    assert catalog.get(SCORES, "flights", DIGEST) is None
    first, second = Scores("small", [0.5]), Scores("large", [0.5, 0.75])
    catalog.put(SCORES, first, "flights", DIGEST)
    catalog.put(SCORES, second, "flights", DIGEST)
    assert catalog.get(SCORES, "flights", DIGEST) == second
    assert catalog.create(SCORES, first, "flights", "best")
    assert not catalog.create(SCORES, second, "flights", "best")
    assert catalog.names(SCORES, "flights") == ["a" * 64, "best"]
    assert catalog.names(SCORES, "flights", after="b") == ["best"]


def test_appended_records_are_numbered(catalog: Catalog) -> None:
    records = [Scores(f"v{number}", []) for number in range(3)]
    for record in records:
        catalog.add(SCORES, record, "flights", DIGEST)
    assert catalog.all(SCORES, "flights", DIGEST) == records == catalog.all(SCORES, "flights")
    assert catalog.all(SCORES, "flights", DIGEST, newest=2) == records[1:]
    assert catalog.numbers(SCORES, "flights", DIGEST) == [1, 2, 3]
    assert catalog.folders(SCORES, "flights") == ["a" * 64]
    assert dataset_names(catalog) == ["flights"]


@pytest.mark.parametrize("name", ["scores", "refs", "acme.", ".scores", "probes.json", "acme/x.scores", "Acme.scores"])
def test_kind_without_its_package_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="acme\\.scores"):
        Record(name, Scores)


@pytest.mark.parametrize(
    "key",
    [
        ("flights",),
        ("../flights", DIGEST),
        ("..", DIGEST),
        ("flights", ".."),
        ("flights", ""),
        ("flights", "../refs/latest/00000001"),
        ("flights", DIGEST, "a", "b", "c"),
        ("Flights", DIGEST),
    ],
)
def test_key_outside_the_folder_of_its_kind_is_refused(catalog: Catalog, key: tuple[str, ...]) -> None:
    before = sorted(Path(catalog.url).rglob("*"))
    with pytest.raises(CatalogError):
        catalog.put(SCORES, Scores("small", []), *key)
    assert sorted(Path(catalog.url).rglob("*")) == before


def test_shared_record_of_another_package_is_refused(catalog: Catalog) -> None:
    with pytest.raises(CatalogError, match="can't keep a record"):
        catalog.put(Record("acme.scores", Scores, is_shared=True), Scores("small", []), DIGEST)


def test_damaged_record_is_named(catalog: Catalog) -> None:
    catalog.put(SCORES, Scores("small", []), "flights", DIGEST)
    (path,) = Path(catalog.url).rglob("acme.scores/*")
    path.write_text("{}")
    with pytest.raises(CorruptRecord, match=r"acme\.scores/aaa.*model"):
        catalog.get(SCORES, "flights", DIGEST)


@dataclass(frozen=True)
class Label:
    seq: int
    who: Identity
    at: str
    label: str
    before: str = ""


def test_changed_entry_of_a_log_is_refused(catalog: Catalog) -> None:
    kind = Record("acme.labels", Label)

    def log() -> Log[Label]:
        return catalog.log(kind, "flights", name="the labels of flights", history="acme labels", prove=lambda *_: {})

    who = Identity("ann", "os-user")
    entries = [log().append(Label(seq, who, stamp(now()), label)) for seq, label in enumerate(("cat", "dog"), start=1)]
    assert log().entries() == entries
    assert log().head() == catalog.get(kind, "flights", 2)
    (first,) = Path(catalog.url).rglob("acme.labels/00000001.json")
    first.write_text(first.read_text().replace("cat", "cow"))
    with pytest.raises(CorruptRecord, match="the labels of flights is damaged: entry 2 does not follow"):
        log().entries()
