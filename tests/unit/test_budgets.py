"""How much of this package one small job enters, and how large the package is. Lower a number once it is lower.

Whoever raises one writes the reason beside it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import grimp

import prefect_stagegate
from prefect_stagegate.catalog import Catalog

ROOT = Path(prefect_stagegate.__file__).parent.parent
ENTERED = {"files": 77, "functions": 638, "depth": 16}
"""By `stagegate stage` of three local files. One is the guard that refuses what was erased."""
LOADED = 154
"""Modules that the import of one task loads. 25 declare plugins: one of them sets up tracing before the first run. Two
have the order in which an arriving version is fetched, and four the keys that plugins add to specs."""
LINES = 88_648
"""Of Python that the wheel has. Added for the doors: 130 to store an environment once instead of in each decision,
124 for facts and bindings beside their checks, 113 for pages, 91 for replicas, 76 for settings, 62 for engines, 52 for
sections, 43 for probes and four further offers, 35 to import a task when asked for, 60 to keep a defective check
from ending the others and a damaged record from ending a version, 11 to name a failed local file.
Another 960 are worker processes, 155 what happens when one dies, hangs or can't start, 104 make a small object cost
a fifth fewer steps. 35 name what was mistyped where an extra is absent,
37 tell the project's addresses and version from its metadata, and show its logo.
26 begin a staging sooner: Rich is imported where it draws, and copying begins beside the listing.
82 show the overview on one screen, replace earlier names, and tell that Great Expectations is absent.
1,040 let a version be read while it arrives: 110 of them by nodes of a site, by runs with blocks, and on full volumes.
650 tell runs which version they use, and name them when it is taken back.
800 are the loader for PyTorch, a room that nothing imports.
700 watch versions after their promotion, 1,280 keep and forget them, 690 let a model's metrics decide; 260 are the
doors for keys of specs, guards and what listings leave out.
1,280 compare the rows of versions in a confined process, and draw how kept figures went.
850 let people answer in the browser: 210 of them refuse forms. 950 let them log in, most of them refusals.
31 name what a newcomer meant: a spec for a dataset, a shell, another scheme or command.
1,060 let programs read pages as JSON and start jobs by tokens, without a browser or a shell.
127 ask the provider before each form who sends it, and show names as they are proved.
130 prove releases of holds when they are read, and say in `status` and by an event who holds."""
TWICE = {"modules": 2, "classes": 1}
"""Names of modules, and of public classes at their top, that occur more than once. A plugin's `commands` is one, and
`Source` is the door and what it opens."""
VERBS = 20
"""Public methods of `Catalog`. What is about one kind of record is a function of that kind's module."""
PLUGINS = "prefect_stagegate.plugins."
EDGES = {"core to plugins": 0, "among plugins": 0}
"""Imports that keep a plugin from being deleted alone."""

BELOW_JOBS = re.compile(
    r"^ *from prefect_stagegate\.(?:cache|catalog|durable|environment|gate|show|sources|transport|validations)\b", re.M
)
INNER = 455
"""Imports of modules below `jobs/` by tests outside of `tests/unit`: a change of the inside alone breaks those.
Three let a catalog die at a write, remove a version, and hold a writer's lease; one is a browser's requests, one a
login, and one runs queries without their process."""


def run(*words: str) -> str:
    return subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_a_small_staging_enters_few_files(tmp_path: Path) -> None:
    entered = json.loads(run("-m", "tests.support.entered", str(tmp_path)))
    assert entered.keys() == ENTERED.keys()
    # Threads that end sooner or later enter a few functions more or less.
    assert all(entered[name] <= ENTERED[name] * 1.01 for name in ENTERED), entered
    assert entered["files"] > 1


def test_one_task_loads_few_modules() -> None:
    count = "print(sum(name.split('.')[0] == 'prefect_stagegate' for name in sys.modules))"
    loaded = int(run("-c", f"import sys\nfrom prefect_stagegate.tasks import stage_dataset\n{count}"))
    assert 1 < loaded <= LOADED


def test_package_has_few_lines() -> None:
    files = [
        path for room in ("prefect_stagegate", "tasks", "flows", "validations") for path in (ROOT / room).rglob("*.py")
    ]
    lines = sum(len(path.read_text().splitlines()) for path in files)
    assert 10_000 < lines <= LINES


def test_names_occur_once() -> None:
    modules, classes = Counter[str](), Counter[str]()
    for module in grimp.build_graph("prefect_stagegate").modules:
        path = ROOT / f"{module.replace('.', '/')}.py"
        if path.is_file() and path.name != "__main__.py":
            modules[path.stem] += 1
            classes.update(re.findall(r"^class ([A-Z]\w*)", path.read_text(), re.MULTILINE))
    twice = {
        kind: sorted(name for name, count in names.items() if count > 1)
        for kind, names in (("modules", modules), ("classes", classes))
    }
    assert all(len(names) <= TWICE[kind] for kind, names in twice.items()), twice


def test_catalog_has_few_methods() -> None:
    assert 10 < sum(not name.startswith("_") for name in dir(Catalog)) <= VERBS


def test_few_imports_name_a_plugin() -> None:
    edges = Counter[str]()
    graph = grimp.build_graph("prefect_stagegate")
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            if (plugin := plugin_of(imported)) and plugin != plugin_of(module):
                edges["among plugins" if plugin_of(module) else "core to plugins"] += 1
    assert set(edges) <= set(EDGES)
    assert all(edges[kind] <= most for kind, most in EDGES.items()), edges


def plugin_of(module: str) -> str:
    """The name of the plugin that a module belongs to; empty for one of the core."""
    return module.removeprefix(PLUGINS).partition(".")[0] if module.startswith(PLUGINS) else ""


def test_few_tests_reach_below_jobs() -> None:
    files = [path for path in (ROOT / "tests").rglob("*.py") if not {"unit", "servers"} & {*path.parts}]
    assert 0 < sum(len(BELOW_JOBS.findall(path.read_text())) for path in files) <= INNER
