import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from prefect_stagegate.catalog import Catalog, RefAction
from prefect_stagegate.catalog import catalog as module
from prefect_stagegate.catalog.gate_records import (
    DECISIONS,
    OF_ONE_CHECK,
    SAME_QUESTION,
    kept_evidence,
    newest_attestation,
    put_attestation,
    put_evidence,
    put_request,
    read_answers,
    read_evidence,
    read_requests,
)
from prefect_stagegate.catalog.kept_records import FILE_VALUES, put_kept, put_probes, read_kept, read_probes
from prefect_stagegate.catalog.records import DirectoryRecords
from prefect_stagegate.catalog.version_records import (
    dataset_names,
    put_spec,
    put_version,
    read_manifest,
    read_origins,
    staged_spec,
    version_digests,
)
from prefect_stagegate.errors import CatalogError, CorruptRecord, RefConflict, UnknownDataset, UnknownRef
from prefect_stagegate.model import Address, Entry, Evidence, Identity, Origin, Outcome, Pin, person_key
from prefect_stagegate.model.manifest import seal
from prefect_stagegate.model.measures import FileValues, PassedProbes
from tests.support.gates import put_approval
from tests.support.records import CountedRecords

ANN, BEN = Identity("ann", "os-user"), Identity("ben", "declared")
ENTRIES = [Entry("a.csv", 3, "blake3:" + "a" * 64), Entry("b/c.csv", 5, "blake3:" + "b" * 64)]
ORIGINS = [
    Origin(e.path, "s3://lake/x/", e.path, e.size, Pin("etag", "1", "strong"), "server", e.digest, 1.5) for e in ENTRIES
]
SEAL = seal(ENTRIES)
OTHER = "sha256:" + "0" * 64


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.open(str(tmp_path / "catalog"))


@pytest.fixture
def staged(catalog: Catalog) -> Catalog:
    put_version(catalog, "flights", SEAL, ENTRIES, ORIGINS)
    return catalog


def test_a_version_comes_back_as_it_was_stored(staged: Catalog) -> None:
    manifest = read_manifest(staged, "flights", SEAL.digest)
    assert (manifest.files, manifest.bytes) == (2, 8)
    assert list(manifest.entries()) == ENTRIES == list(manifest.entries())
    assert list(read_origins(staged, "flights", SEAL.digest)) == ORIGINS
    assert dataset_names(staged) == ["flights"]
    assert version_digests(staged, "flights") == [SEAL.digest]


def test_the_same_version_again_is_not_new(staged: Catalog) -> None:
    assert not put_version(staged, "flights", SEAL, ENTRIES, ORIGINS)


def test_record_after_the_last_number_is_refused(staged: Catalog) -> None:
    """Under a longer name it would be no record: a decline, a failure or a signature that counts for nobody."""
    request = put_request(staged, "flights", SEAL.digest, "production", "sha256:p", ANN)
    put_approval(staged, request, BEN, approved=True, reason="seen")
    put_evidence(staged, "flights", SEAL.digest, [Evidence("schema", Outcome.PASS, "", "data")])
    staged.add(DECISIONS, {"of": "others"}, "flights", SEAL.digest, "production")
    for record in Path(staged.url).rglob("00000001.json"):
        record.rename(record.with_name("99999999.json"))
    adds: list[Callable[[], object]] = [
        lambda: put_approval(staged, request, BEN, approved=False, reason="too early"),
        lambda: put_evidence(staged, "flights", SEAL.digest, [Evidence("schema", Outcome.FAIL, "", "data")]),
        lambda: staged.add(DECISIONS, {"of": "us"}, "flights", SEAL.digest, "production"),
    ]
    for add in adds:
        with pytest.raises(
            CatalogError, match=r"Nothing can be added after .*/99999999\.json: it has the last number"
        ) as refused:
            add()
        assert "remove it" in refused.value.hint
    assert not list(Path(staged.url).rglob("100000000.json"))


def test_unknown_names_tell_what_is_known(staged: Catalog) -> None:
    with pytest.raises(UnknownDataset, match=r"no dataset 'planes'.*It has: flights"):
        staged.resolve(Address("planes"))
    with pytest.raises(UnknownRef, match="no ref `production`"):
        staged.resolve(Address("flights", "production"))
    with pytest.raises(UnknownRef, match="stagegate ls flights"):
        staged.resolve(Address("flights", OTHER))


def test_a_ref_moves_by_appending_to_its_log(catalog: Catalog) -> None:
    first = catalog.move_ref("flights", "latest", SEAL.digest, head=None, action=RefAction.STAGE, who=ANN)
    second = catalog.move_ref("flights", "latest", OTHER, head=first, action=RefAction.STAGE, who=BEN, reason="newer")
    assert catalog.ref("flights", "latest") == second
    assert catalog.history("flights", "latest") == [first, second]
    assert second.before.startswith("sha256:")


def test_of_many_promoters_at_once_exactly_one_wins(catalog: Catalog) -> None:
    def promote(number: int) -> bool:
        who = Identity(f"p{number}", "declared")
        try:
            catalog.move_ref("flights", "latest", SEAL.digest, head=None, action=RefAction.STAGE, who=who)
        except RefConflict as error:
            return "was changed by p" not in str(error)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(promote, range(8))) == 1
    assert len(catalog.history("flights", "latest")) == 1


def test_a_log_that_was_changed_afterwards_is_not_believed(catalog: Catalog, tmp_path: Path) -> None:
    head = catalog.move_ref("flights", "latest", SEAL.digest, head=None, action=RefAction.STAGE, who=ANN)
    catalog.move_ref("flights", "latest", OTHER, head=head, action=RefAction.STAGE, who=ANN)
    first = tmp_path / "catalog/datasets/flights/refs/latest/00000001.json"
    first.write_text(first.read_text().replace('"ann"', '"eve"'))
    with pytest.raises(CorruptRecord, match="does not follow"):
        catalog.history("flights", "latest")


def test_a_log_with_a_missing_entry_is_not_believed(catalog: Catalog, tmp_path: Path) -> None:
    head = catalog.move_ref("flights", "latest", SEAL.digest, head=None, action=RefAction.STAGE, who=ANN)
    catalog.move_ref("flights", "latest", OTHER, head=head, action=RefAction.STAGE, who=ANN)
    (tmp_path / "catalog/datasets/flights/refs/latest/00000001.json").unlink()
    with pytest.raises(CorruptRecord):
        catalog.history("flights", "latest")


def test_newest_spec_is_current_and_an_equal_one_is_not_written(staged: Catalog, tmp_path: Path) -> None:
    for spec in ({"a": 1}, {"a": 1}, {"a": 2}):
        put_spec(staged, "flights", SEAL.digest, spec)
    assert staged_spec(staged, "flights", SEAL.digest) == {"a": 2}
    assert len(list((tmp_path / "catalog").rglob("specs/*/*.json"))) == 2


def test_evidence_accumulates_in_order(staged: Catalog) -> None:
    for outcome in (Outcome.FAIL, Outcome.PASS):
        put_evidence(staged, "flights", SEAL.digest, [Evidence("schema", outcome, "columns", "data", at="t")])
    assert [evidence.outcome for evidence in read_evidence(staged, "flights", SEAL.digest)] == [
        Outcome.FAIL,
        Outcome.PASS,
    ]


def test_current_evidence_is_read_in_one_piece_after_many_checks(catalog: Catalog) -> None:
    def answer(check: str, node: str, number: int) -> Evidence:
        return Evidence(check, Outcome.PASS, str(number), "infra", binding={"node": node})

    put_evidence(catalog, "flights", SEAL.digest, [answer("schema", "any", 0)])
    for number in range(300):
        put_evidence(catalog, "flights", SEAL.digest, [answer("space", f"node-{number % 30}", number)])
    counted = CountedRecords(catalog.records)
    evidence = read_evidence(Catalog(counted), "flights", SEAL.digest)

    assert counted.calls == {"list": 1, "read": 1}
    assert [answer.summary for answer in evidence if answer.check == "schema"] == ["0"]
    spaces = [int(answer.summary) for answer in evidence if answer.check == "space"]
    assert spaces == list(range(300 - OF_ONE_CHECK, 300))
    alone = [answer("space", "node-1", number) for number in range(9)]
    assert kept_evidence(alone) == alone[-SAME_QUESTION:]


def test_no_evidence_is_lost_when_two_nodes_write_at_once(staged: Catalog) -> None:
    def put(number: int) -> None:
        put_evidence(staged, "flights", SEAL.digest, [Evidence(f"check-{number}", Outcome.PASS, "", "data")])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(16)))
    assert {evidence.check for evidence in read_evidence(staged, "flights", SEAL.digest)} == {
        f"check-{n}" for n in range(16)
    }


def test_a_request_is_kept_with_its_answers(staged: Catalog) -> None:
    request = put_request(staged, "flights", SEAL.digest, "production", "sha256:p", ANN)
    put_approval(staged, request, BEN, approved=False, reason="too early")
    put_approval(staged, request, BEN, approved=True, reason="now")
    assert read_requests(staged, "flights", "production") == [request]
    assert [answer.approved for answer in read_answers(staged, request)] == [False, True]


def test_answers_at_once_are_one_for_each_person(staged: Catalog) -> None:
    request = put_request(staged, "flights", SEAL.digest, "production", "sha256:p", ANN)
    people = [BEN, replace(BEN, name=BEN.name.upper()), ANN] * 4

    with ThreadPoolExecutor(len(people)) as pool:
        for who in people:
            pool.submit(put_approval, staged, request, who, approved=True, reason="seen")

    assert sorted(person_key(approval.approver.name) for approval in read_answers(staged, request)) == sorted(
        [ANN.name, BEN.name]
    )


def test_a_request_without_the_fields_of_later_ones_is_read(staged: Catalog, tmp_path: Path) -> None:
    request = put_request(staged, "flights", SEAL.digest, "production", "sha256:p", ANN, after=3)
    (record,) = (tmp_path / "catalog").rglob("request.json")
    fields = json.loads(record.read_bytes())
    del fields["after"]
    record.chmod(0o600)
    record.write_text(json.dumps(fields))
    assert read_requests(staged, "flights", "production") == [replace(request, after=None)]


def test_a_store_that_lets_a_record_be_created_twice_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Careless(DirectoryRecords):
        def create(self, key: str, data: bytes) -> bool:
            self.replace(key, data)
            return True

    monkeypatch.setattr(module, "open_records", lambda url, _: Careless(Path(url)))
    for _ in range(2):
        with pytest.raises(CatalogError, match="created twice"):
            Catalog.open(str(tmp_path))


def test_a_request_that_a_dead_writer_did_not_finish_is_none(staged: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "catalog/datasets/flights/approvals/production/20260301T030000.000000Z-dead"
    folder.mkdir(parents=True)
    (folder / ".request.json.half").write_bytes(b'{"id": ')
    (tmp_path / "catalog/datasets/planes").mkdir()
    assert read_requests(staged, "flights", "production") == []
    assert dataset_names(staged) == ["flights"]


def test_newest_decision_is_the_last_written_whatever_its_clock(
    staged: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_attestation(staged, "flights", SEAL.digest, "pilot", {"result": "PASSED"})
    monkeypatch.setattr(module, "now", lambda: datetime(2001, 1, 1, tzinfo=UTC))
    put_attestation(staged, "flights", SEAL.digest, "pilot", {"result": "FAILED"})
    assert newest_attestation(staged, "flights", SEAL.digest, "pilot") == {"result": "FAILED"}


def test_next_write_removes_a_dead_writer_s_leftovers(staged: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "catalog/datasets/flights/specs" / SEAL.digest.removeprefix("sha256:")
    folder.mkdir(parents=True, exist_ok=True)
    dead, alive, strange = (folder / f".00000001.json.{rest}" for rest in ("a" * 32, "b" * 32, "swp"))
    for path in (dead, alive, strange):
        path.write_bytes(b"{")
    os.utime(dead, (0, 0))
    os.utime(strange, (0, 0))
    put_spec(staged, "flights", SEAL.digest, {"a": 1})
    assert not dead.exists()
    assert alive.exists()
    assert strange.exists(), "it is somebody else's"


@pytest.mark.parametrize("way", ["folder", "link", "pipe"])
def test_a_taken_record_name_loops_no_writer(staged: Catalog, tmp_path: Path, way: str) -> None:
    file = tmp_path / f"catalog/datasets/flights/evidence/{SEAL.digest[7:]}/00000001.json"
    file.parent.mkdir(parents=True)
    if way == "folder":
        file.mkdir()
    elif way == "link":
        file.symlink_to("nowhere")
    else:
        os.mkfifo(file)
    with pytest.raises(CatalogError, match=r"00000001\.json"):
        put_evidence(staged, "flights", SEAL.digest, [Evidence("schema", Outcome.PASS, "", "data")])


def test_a_file_in_a_folder_s_place_is_one_clear_error(staged: Catalog, tmp_path: Path) -> None:
    (tmp_path / "catalog/datasets/flights/specs").write_text("")
    with pytest.raises(CatalogError, match="Not a directory"):
        put_spec(staged, "flights", SEAL.digest, {"a": 1})


def test_a_catalog_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "format").write_text("stagegate-catalog 9\n")
    with pytest.raises(CatalogError, match=r"another format than .stagegate-catalog 2"):
        Catalog.open(str(tmp_path))


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CatalogError, match="STAGEGATE_CATALOG"):
        Catalog.open(str(tmp_path / "file/catalog"))


@pytest.mark.parametrize("cut", [0, 10, 100])
def test_a_damaged_record_is_named(staged: Catalog, tmp_path: Path, cut: int) -> None:
    manifest = next((tmp_path / "catalog").rglob("manifests/*.parquet"))
    manifest.write_bytes(manifest.read_bytes()[:cut])
    with pytest.raises(CorruptRecord, match="manifests/"):
        read_manifest(staged, "flights", SEAL.digest)


def test_manifest_that_contradicts_its_digest_is_an_error(catalog: Catalog) -> None:
    others = [Entry("A.csv", 3, ENTRIES[0].digest), ENTRIES[1]]
    put_version(catalog, "flights", SEAL, others, ORIGINS)
    entries = read_manifest(catalog, "flights", SEAL.digest).entries()
    assert [next(entries), next(entries)] == others
    with pytest.raises(CorruptRecord, match="does not hold the entries of its version"):
        next(entries)


def test_a_manifest_with_a_damaged_page_is_named(staged: Catalog, tmp_path: Path) -> None:
    manifest = next((tmp_path / "catalog").rglob("manifests/*.parquet"))
    data = bytearray(manifest.read_bytes())
    data[8:60] = b"\xff" * 52
    manifest.write_bytes(data)
    with pytest.raises(CorruptRecord, match="manifests/"):
        list(read_manifest(staged, "flights", SEAL.digest).entries())


def test_long_manifests_are_read_as_a_stream(catalog: Catalog) -> None:
    def many() -> Iterator[Entry]:
        return (Entry(f"{number:06d}", 1, "blake3:" + "c" * 64) for number in range(40_000))

    sealed = seal(many())
    put_version(catalog, "flights", sealed, many(), [])
    stream = read_manifest(catalog, "flights", sealed.digest).entries()
    assert next(stream).path == "000000"
    assert sum(1 for _ in stream) == 39_999


def test_another_versions_spec_is_not_believed(staged: Catalog, tmp_path: Path) -> None:
    put_spec(staged, "flights", SEAL.digest, {"license": "CC-BY-NC-4.0"})
    put_spec(staged, "flights", OTHER, {"license": "CC0-1.0"})
    own, others = (
        (tmp_path / f"catalog/datasets/flights/specs/{digest[7:]}/00000001.json") for digest in (SEAL.digest, OTHER)
    )
    own.chmod(0o600)
    own.write_bytes(others.read_bytes())
    with pytest.raises(CorruptRecord, match="is not the spec of its version"):
        staged_spec(staged, "flights", SEAL.digest)


def test_records_that_name_their_validations_are_read(staged: Catalog, tmp_path: Path) -> None:
    """Earlier releases kept which validation read which file, and a list of that for each version."""
    put_kept(staged, FILE_VALUES, FileValues(("sum",), {"blake3:a": [[1]]}), "flights", table="t")
    put_probes(staged, "flights", PassedProbes({"image": frozenset(["blake3:a", "blake3:b"])}))
    folder = tmp_path / "catalog/datasets/flights"
    (values,) = folder.glob("values/*.json")
    earlier = json.loads(values.read_text())
    readings = {"run": {"at": "2026-11-27T03:00:00.000000Z", "run": "run"}}
    earlier["values"] |= {"read_by": {"blake3:a": "run"}, "readings": readings}
    values.write_text(json.dumps(earlier))
    passes = {"image": {"run": ["blake3:a"], "": ["blake3:b"]}, "text": ["blake3:c"]}
    (folder / "probes.json").write_text(json.dumps({"dataset": "flights", "values": passes, "readings": readings}))
    listed = folder / "readings" / ("1" * 64) / f"{'2' * 64}.json"
    listed.parent.mkdir(parents=True)
    listed.write_text("{}")
    kept = read_kept(staged, FILE_VALUES, "flights", table="t")
    assert kept
    assert kept.of("sum") == {"blake3:a": [1]}
    passed = {"image": frozenset(["blake3:a", "blake3:b"]), "text": frozenset(["blake3:c"])}
    assert read_probes(staged, "flights") == PassedProbes(passed)
    keys = {key.split("/")[2] for key in DirectoryRecords(tmp_path / "catalog").keys("datasets/flights/")}
    assert keys == {"manifests", "origins", "values", "probes.json"}
