"""A cache that others can reach: who is believed, what they can plant, and what is served where little is allowed.

Two users are processes of two user ids; making them needs root. The tests that don't are the first ones.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.gc import collect
from prefect_stagegate.cache.space import used_bytes
from prefect_stagegate.errors import CacheError
from prefect_stagegate.jobs.open_workspace import open_workspace
from prefect_stagegate.jobs.read import open_dataset
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.upkeep.verify import verify
from prefect_stagegate.workspace import Workspace
from tests.support.versions import read_manifest

OWNER, NEIGHBOUR, GROUP = 40_001, 40_002, 40_100
FILES = {"a.bin": b"the first", "b/c.bin": b"the second", "empty": b""}


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    for name, data in FILES.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(data)
        os.utime(tmp_path / "source" / name, (1e9, 1e9))  # old enough to be remembered
    return {"stagegate": 1, "dataset": "things", "sources": [{"url": str(tmp_path / "source")}]}


def holds(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("folder", ["blobs", "ingest", "views", "refs", "leases", "trash"])
def test_a_folder_of_the_cache_that_leads_elsewhere_is_refused(
    workspace: Workspace, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(workspace.cache.root / folder)
    (workspace.cache.root / folder).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match=f"{folder} is not a folder of the cache, but a link or a file"):
        Cache.open(workspace.cache.root)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("folder", ["", "blobs", "views"])
def test_a_cache_that_everybody_may_write_to_is_refused(workspace: Workspace, folder: str) -> None:
    (workspace.cache.root / folder).chmod(0o1777)
    with pytest.raises(CacheError, match="Everybody may write") as caught:
        Cache.open(workspace.cache.root)
    assert "chmod o-w" in caught.value.hint


def test_cache_root_may_be_a_symbolic_link(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(workspace.cache.root)
    assert Cache.open(tmp_path / "link").root == tmp_path / "link"


@pytest.mark.parametrize("plant", ["symlink", "other bytes", "writable"])
def test_what_is_no_blob_is_not_believed_for_its_place_and_size(
    workspace: Workspace, spec: dict[str, Any], tmp_path: Path, plant: str
) -> None:
    version = stage(workspace, spec)
    (entry,) = [
        entry for entry in read_manifest(workspace.catalog, "things", version.digest).entries() if entry.path == "a.bin"
    ]
    blob = workspace.cache.layout.blob(entry.digest)
    shutil.rmtree(workspace.cache.root / "views" / "things")
    blob.unlink()
    if plant == "symlink":
        # Of the blob's size, to a file with its bytes, which may change later.
        (workspace.cache.root / "x").write_bytes(FILES["a.bin"])
        (workspace.cache.root / "x").chmod(0o444)
        blob.symlink_to("../..".ljust(entry.size - 1, "/") + "x")
        assert blob.lstat().st_size == entry.size
    else:
        blob.write_bytes(b"no first!")
        blob.chmod(0o444 if plant == "other bytes" else 0o666)
    if plant == "other bytes":
        workspace.cache.memory.forget([entry.digest])  # the pin is known no more, so the object is fetched and compared
    else:
        assert not workspace.cache.blobs.holds(entry.digest, entry.size)
    assert holds(stage(workspace, spec).path) == FILES
    assert not verify(workspace).damaged


def test_link_in_a_view_is_damage_though_its_bytes_are_right(
    workspace: Workspace, spec: dict[str, Any], tmp_path: Path
) -> None:
    version = stage(workspace, spec)
    version.path.chmod(0o755)
    (version.path / "a.bin").unlink()
    (version.path / "a.bin").symlink_to(tmp_path / "source" / "a.bin")
    (damage,) = verify(workspace).damaged
    assert damage.finding.subject == "a.bin"


# ── volumes whose locks tell little ─────────────────────────────────────────────────────────────────────────────────


def test_network_file_system_serves_hits_and_collects_nothing(
    workspace: Workspace, spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = stage(workspace, spec)
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nnas:/x {tmp_path.resolve()} nfs4 rw 0 0\n")
    monkeypatch.setattr("prefect_stagegate.mounts.MOUNTS", mounts)
    assert stage(workspace, spec).bytes_fetched == 0
    with open_dataset("things", cache=workspace.cache.root) as dataset:
        assert holds(dataset.path) == FILES
    with pytest.raises(CacheError, match="is on nfs4") as caught:
        collect(workspace.cache.layout)
    assert "local volume" in caught.value.hint
    assert version.path.is_dir()


NO_LOCKS = "int flock(int file, int how) { (void)file; (void)how; return 0; }\n"
WITHOUT_LOCKS = """
import sys
from pathlib import Path
from prefect_stagegate.cache.gc import collect
from prefect_stagegate.jobs.read import open_dataset
from prefect_stagegate.jobs.staging.stage import stage
from prefect_stagegate.jobs.open_workspace import open_workspace

root = Path(sys.argv[1])
where = open_workspace(root / "cache", root / "catalog")
spec = {"stagegate": 1, "dataset": "things", "sources": [{"url": str(root / "source")}]}
assert stage(where, spec).files == 3
assert stage(where, spec).bytes_fetched == 0
with open_dataset("things", cache=root / "cache") as found:
    assert (found.path / "a.bin").read_bytes() == b"the first"
try:
    collect(where.cache.layout)
except Exception as error:
    print(error)
"""


@pytest.mark.system  # a C compiler makes the library whose flock does nothing
def test_without_flock_staging_works_and_collection_is_off(spec: dict[str, Any], tmp_path: Path) -> None:
    source, library = tmp_path / "nolocks.c", tmp_path / "nolocks.so"
    source.write_text(NO_LOCKS)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    env = {**os.environ, "LD_PRELOAD": str(library)}
    command = [sys.executable, "-c", WITHOUT_LOCKS, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "File locks have no effect" in done.stdout


# ── two users ───────────────────────────────────────────────────────────────────────────────────────────────────────


def as_user(user: int, action: Callable[[], None], *, groups: tuple[int, ...] = ()) -> str:
    """Do something in a child process of another user; returns what it raised, as text, or nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            action()
        except BaseException as error:  # noqa: BLE001 - told to the parent
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


@pytest.fixture
def shared(tmp_path: Path, spec: dict[str, Any]) -> Iterator[Path]:
    """A folder that two users may enter, with the source, and a cache and a catalog of the owner's."""
    above = [parent for parent in (tmp_path, *tmp_path.parents) if stat.S_IMODE(parent.stat().st_mode) == 0o700]
    for folder in above:
        folder.chmod(0o711)
    for name in ("home", "catalog"):
        (tmp_path / name).mkdir(mode=0o777)
        (tmp_path / name).chmod(0o777)
    yield tmp_path
    for folder in above:
        folder.chmod(0o700)
    subprocess.run(["chown", "-R", f"{os.geteuid()}", tmp_path], check=True)


needs_root = pytest.mark.system


def stages(shared: Path, spec: dict[str, Any]) -> Callable[[], None]:
    def action() -> None:
        stage(open_workspace(shared / "home" / "cache", shared / "catalog"), spec)

    return action


@needs_root
def test_cache_of_another_user_is_refused_unless_group_shared(shared: Path, spec: dict[str, Any]) -> None:
    cache = shared / "home" / "cache"

    def reads() -> None:
        with open_dataset("things", cache=cache) as dataset:
            assert holds(dataset.path) == FILES

    assert as_user(OWNER, stages(shared, spec)) == ""
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert "CacheError" in as_user(NEIGHBOUR, reads)
    cache.chmod(0o755)
    for folder in cache.iterdir():
        if folder.is_dir():
            folder.chmod(0o755)
    assert f"belongs to the user {OWNER}" in as_user(NEIGHBOUR, reads)
    os.chown(cache, OWNER, GROUP)
    cache.chmod(0o2750)
    assert as_user(NEIGHBOUR, reads, groups=(GROUP,)) == ""
    problem = as_user(NEIGHBOUR, stages(shared, {**spec, "dataset": "others"}), groups=(GROUP,))
    assert "permission denied" in problem
    assert "CacheError" in as_user(NEIGHBOUR, reads)


@needs_root
def test_a_cache_that_can_only_be_read_may_lack_empty_folders(shared: Path, spec: dict[str, Any]) -> None:
    cache = shared / "home" / "cache"

    def reads() -> None:
        opened = Cache.open(cache, create=False)
        assert opened.leases.live() == []
        assert opened.refs.datasets() == ["things"]
        assert len(list(opened.views.all())) == 1
        assert used_bytes(opened.layout) > 0
        with open_dataset("things", cache=cache) as dataset:
            assert holds(dataset.path) == FILES

    assert as_user(OWNER, stages(shared, spec)) == ""
    os.chown(cache, OWNER, GROUP)
    cache.chmod(0o2750)
    for folder in ("views", "refs", "blobs"):
        subprocess.run(["chmod", "-R", "a+rX", cache / folder], check=True)
    for folder in ("leases", "trash", "ingest"):
        (cache / folder).rmdir()
    assert as_user(NEIGHBOUR, reads, groups=(GROUP,)) == ""
    assert not (cache / "leases").exists()


@needs_root
def test_blob_planted_by_another_user_is_hashed_first(shared: Path, spec: dict[str, Any]) -> None:
    assert as_user(OWNER, stages(shared, spec)) == ""
    cache = Cache.open(shared / "home" / "cache")
    (version,) = list(cache.views.all())
    workspace = open_workspace(cache.root, shared / "catalog")
    entries = {entry.path: entry for entry in read_manifest(workspace.catalog, *version).entries()}
    shutil.rmtree(cache.root / "views" / "things")
    for name, data in (("a.bin", b"no first!"), ("b/c.bin", FILES["b/c.bin"])):
        blob = cache.layout.blob(entries[name].digest)
        blob.unlink()
        blob.write_bytes(data)
        blob.chmod(0o444)
        os.chown(blob, NEIGHBOUR, NEIGHBOUR)
    assert not cache.blobs.holds(entries["a.bin"].digest, entries["a.bin"].size)
    assert cache.blobs.holds(entries["b/c.bin"].digest, entries["b/c.bin"].size)

    def stages_and_reads() -> None:
        version = stage(open_workspace(cache.root, shared / "catalog"), spec)
        assert holds(version.path) == FILES

    assert as_user(OWNER, stages_and_reads) == ""


@needs_root
def test_cache_prepared_by_another_user_is_refused_unwritten(shared: Path, spec: dict[str, Any]) -> None:
    assert as_user(NEIGHBOUR, stages(shared, spec)) == ""
    (shared / "home" / "cache").chmod(0o777)
    before = sorted((shared / "home" / "cache").rglob("*"))
    problem = as_user(OWNER, stages(shared, spec))
    assert "Everybody may write" in problem
    (shared / "home" / "cache").chmod(0o755)
    assert f"belongs to the user {NEIGHBOUR}" in as_user(OWNER, stages(shared, spec))
    assert sorted((shared / "home" / "cache").rglob("*")) == before


@needs_root
def test_a_group_shares_a_cache_whose_folder_says_so(shared: Path, spec: dict[str, Any]) -> None:
    cache = shared / "home" / "cache"
    cache.mkdir()
    os.chown(cache, OWNER, GROUP)
    cache.chmod(0o2770)
    in_group = (GROUP,)
    other = {**spec, "dataset": "others"}

    def stages_all(wanted: dict[str, Any], fetched: int) -> Callable[[], None]:
        def action() -> None:
            os.umask(0o077)
            version = stage(open_workspace(cache, shared / "catalog" / str(os.getuid())), wanted)
            assert holds(version.path) == FILES
            assert version.bytes_fetched == fetched
            with open_dataset(wanted["dataset"], cache=cache) as dataset:
                assert holds(dataset.path) == FILES

        return action

    assert as_user(OWNER, stages_all(spec, sum(map(len, FILES.values()))), groups=in_group) == ""
    assert as_user(NEIGHBOUR, stages_all(other, 0), groups=in_group) == ""
    assert as_user(OWNER, stages_all(other, 0), groups=in_group) == ""
    assert "permission denied" in as_user(NEIGHBOUR + 1, stages_all(other, 0))

    def collects() -> None:
        for ref in (cache / "refs").rglob("latest"):
            ref.unlink()
        collection = collect(Cache.open(cache).layout)
        assert len(collection.versions) == 2, collection
        assert collection.blobs == len(FILES), collection
        assert not list((cache / "trash").iterdir())

    assert as_user(NEIGHBOUR, collects, groups=in_group) == ""


@needs_root
def test_group_members_see_leases_and_take_over_dead_ones(shared: Path, spec: dict[str, Any]) -> None:
    cache = shared / "home" / "cache"
    cache.mkdir()
    os.chown(cache, OWNER, GROUP)
    cache.chmod(0o2770)
    assert as_user(OWNER, stages(shared, spec), groups=(GROUP,)) == ""
    ready, end = os.pipe(), os.pipe()
    holder = os.fork()
    if holder == 0:
        os.close(end[1])

        def reads() -> None:
            with open_dataset("things", cache=cache):
                claim = Cache.open(cache).blobs.claim("left", "behind")
                assert claim
                os.write(ready[1], b"x")
                os.read(end[0], 1)

        problem = as_user(OWNER, reads, groups=(GROUP,))
        os._exit(bool(problem))
    os.read(ready[0], 1)

    def sees_and_spares() -> None:
        opened = Cache.open(cache)
        assert [lease.dataset for lease in opened.leases.live()] == ["things"]
        assert opened.blobs.claim("left", "behind") is None
        for ref in (cache / "refs").rglob("latest"):
            ref.unlink()
        assert collect(opened.layout).versions == ()

    def takes_over() -> None:
        opened = Cache.open(cache)
        assert opened.leases.live() == []
        claim = opened.blobs.claim("left", "behind")
        assert claim
        claim.drop()

    assert as_user(NEIGHBOUR, sees_and_spares, groups=(GROUP,)) == ""
    os.close(end[1])
    os.waitpid(holder, 0)
    assert as_user(NEIGHBOUR, takes_over, groups=(GROUP,)) == ""
