from hypothesis import given
from hypothesis import strategies as st

from prefect_stagegate.model import Entry
from prefect_stagegate.model.manifest import Change, diff, seal

names = st.text(
    st.characters(min_codepoint=33, exclude_characters="/\x7f", exclude_categories=["Cs"]), min_size=1, max_size=8
)
flat = st.dictionaries(names.filter(lambda name: name not in (".", "..")), st.integers(0, 9), max_size=12)


def entries(sizes: dict[str, int]) -> list[Entry]:
    return [Entry(name, size, "blake3:" + f"{size:064x}") for name, size in sorted(sizes.items())]


@given(flat)
def test_python_orders_paths_by_their_utf8_bytes(sizes: dict[str, int]) -> None:
    assert sorted(sizes) == sorted(sizes, key=str.encode)
    assert seal(entries(sizes)).files == len(sizes)


@given(flat, flat)
def test_versions_share_a_digest_exactly_when_nothing_differs(old: dict[str, int], new: dict[str, int]) -> None:
    same = seal(entries(old)).digest == seal(entries(new)).digest
    assert same == (not list(diff(entries(old), entries(new))))


@given(flat, flat)
def test_applying_a_diff_to_the_old_version_gives_the_new_one(old: dict[str, int], new: dict[str, int]) -> None:
    result = {entry.path: entry for entry in entries(old)}
    for change in diff(entries(old), entries(new)):
        if change.change is Change.REMOVED:
            del result[change.path]
        elif change.new:
            result[change.path] = change.new
    assert sorted(result.values(), key=lambda entry: entry.path) == entries(new)
