import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_stagegate.catalog.tables import ENTRIES, ORIGINS, to_column, to_values
from prefect_stagegate.model import Entry, Origin, Pin
from prefect_stagegate.model.manifest import Seal

NO_FIGURES = Seal("", 0, 0)
texts = st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=20)


@given(texts, st.integers(0, 5))
def test_texts_survive_a_column_and_a_slice_of_it(values: list[str], start: int) -> None:
    column = to_column(pa.string(), values)
    assert column.equals(pa.array(values, pa.string()))
    assert to_values(column.slice(start)) == values[start:]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20), st.integers(0, 5))
def test_numbers_survive_a_column_and_a_slice_of_it(values: list[int], start: int) -> None:
    column = to_column(pa.int64(), values)
    assert column.equals(pa.array(values, pa.int64()))
    assert to_values(column.slice(start)) == values[start:]


@pytest.mark.parametrize("count", [0, 1, 16_384, 16_385])
def test_rows_survive_a_file_in_their_order(count: int) -> None:
    entries = [Entry(f"ü/{number:06d}", number, f"blake3:{number:064x}") for number in range(count)]
    assert list(ENTRIES.read(ENTRIES.write(entries, NO_FIGURES), "key")) == entries


def test_what_a_source_does_not_tell_stays_untold() -> None:
    pin = Pin("etag", "", "weak")
    origins = [
        Origin("a", "s3://lake/", "a", 1, pin, "computed", "blake3:0", modified, position)
        for modified, position in ((None, 0), (1.5, 3))
    ]
    assert list(ORIGINS.read(ORIGINS.write(origins, NO_FIGURES), "key")) == origins


def test_no_row_costs_an_import_of_pandas() -> None:
    script = (
        "import sys; from prefect_stagegate.catalog.tables import ENTRIES; from prefect_stagegate.model import Entry\n"
        "from prefect_stagegate.model.manifest import Seal\n"
        "list(ENTRIES.read(ENTRIES.write([Entry('a', 1, 'blake3:0')], Seal('', 1, 1)), 'key'))\n"
        "print('pandas' in sys.modules)\n"
    )
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
    )


def test_pyarrow_is_not_loaded_before_sources_are_listed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a").write_bytes(b"a")
    script = (
        "import sys, time; from pathlib import Path\n"
        "from prefect_stagegate.catalog.version_records import dataset_names\n"
        "from prefect_stagegate.jobs.open_workspace import open_workspace\n"
        "from prefect_stagegate.jobs.staging import stage\n"
        "folder, listed = Path(sys.argv[1]), stage.list_sources\n"
        "where = open_workspace(folder / 'cache', folder / 'catalog')\n"
        "dataset_names(where.catalog)\n"
        "print('pyarrow' in sys.modules)\n"
        "def listing(*given):\n"
        "    print('pyarrow' in sys.modules)\n"
        "    yield from listed(*given)\n"
        "    until = time.monotonic() + 20\n"
        "    while 'pyarrow.parquet' not in sys.modules and time.monotonic() < until: time.sleep(0.01)\n"
        "    print('pyarrow.parquet' in sys.modules)\n"
        "stage.list_sources = listing\n"
        "stage.stage(where, {'stagegate': 1, 'dataset': 'd', 'sources': [{'url': f'file://{folder}/data/'}]})\n"
    )
    words = [sys.executable, "-c", script, str(tmp_path)]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "False\nFalse\nTrue\n"
