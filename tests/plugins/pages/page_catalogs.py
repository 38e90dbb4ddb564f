"""A catalog whose pages show every case: passed, refused, inconclusive, waiting, withdrawn, empty, large, hostile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect_stagegate.catalog import RefAction
from prefect_stagegate.catalog.gate_records import put_evidence
from prefect_stagegate.catalog.kept_records import put_kept
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.jobs.address import stored_spec
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.policy import adopt
from prefect_stagegate.jobs.gating.rollback import rollback
from prefect_stagegate.model import (
    Address,
    Entry,
    Evidence,
    Finding,
    Identity,
    Origin,
    Outcome,
    Pin,
    Severity,
)
from prefect_stagegate.model.manifest import seal
from prefect_stagegate.plugins.fleet.nodes import HeldVersion, NodeRecord, put_node
from prefect_stagegate.plugins.profile.profiles import LEVELS, PROFILES, ColumnProfile, TableProfile, files_digest
from prefect_stagegate.plugins.profile.profiling import table_files
from prefect_stagegate.plugins.retention.retirement import retire
from prefect_stagegate.plugins.runs.use_records import TrackedRun, UseBegun, record_begun
from prefect_stagegate.plugins.watch.watch_records import HOLDS, Hold
from prefect_stagegate.validations.partition_columns import row_digests
from prefect_stagegate.workspace import ResolvedVersion, Workspace
from tests.support.scenario import ADA, INES, OWNERS, Scenario
from tests.support.versions import put_spec, put_version, staged_spec

GATES: dict[str, Any] = {
    "pilot": {"require": ["license"]},
    "production": {"extends": "pilot", "require": ["digest", {"approval": {"count": 1, "from": ["infra"]}}]},
}
EXPECTED = [
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "a", "min_value": 0}, "severity": "warning"},
    {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "b"}, "description": "Every trip has a `b`."},
]
TRIPS = {"files": "*.csv", "columns": {"a": "int", "b": "int"}, "pii": ["b"], "suite": {"expectations": EXPECTED}}
CONTRACT = {"tables": {"trips": TRIPS}, "files": [{"match": "*.csv", "probes": ["unique"], "sample": "10%"}]}
SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
TURNED = "\u202egnp.exe\u2066 \x1b[31mred\x1b[0m \u200f"
LONG = "word" * 2500
HOSTILE = f"{SCRIPT} {TURNED} {LONG} `{SCRIPT}` javascript:alert(1) {{{{ 7*7 }}}}"
CASES = ("passed", "refused", "inconclusive", "waiting", "adopted", "withdrawn", "held", "empty", "large", "hostile")
LARGE = 10_000
"""Files of the large dataset."""


def fill(folder: Path) -> Workspace:
    """Fill a catalog with a dataset for each case; gives the node."""

    def scenario(name: str, **keys: Any) -> Scenario:
        (folder / name).mkdir()
        made = Scenario(folder / name, name, **{"gates": GATES, **keys})
        # One cache and one catalog for all.
        made.on = {"cache": folder / "cache", "catalog": folder / "catalog"}
        return made

    passed = scenario("passed", contract=CONTRACT)
    for text in ("a,b\n1,2\n", "a,b\n1,2\n3,4\n"):
        passed.deliver(text)
        passed.promote()
    node = passed.node()
    _profile(node, "passed")
    old, new = (entry.digest for entry in node.catalog.history("passed", "production"))
    passed.run("diff", f"passed@{old}", f"passed@{new}", "--rows")
    run = UseBegun(
        TrackedRun("mlflow", "3f2a", HOSTILE, "https://mlflow.example.org"), HOSTILE, HOSTILE, "n", stamp(now())
    )
    record_begun(node.catalog, "passed", new, run)
    scenario("refused", license="CC-BY-NC-4.0").deliver("one")
    check(node, Address("refused"), "pilot")
    scenario("inconclusive", gates={"pilot": {"require": ["license", "schema"]}}).deliver("one")
    check(node, Address("inconclusive"), "pilot")
    waiting = scenario("waiting")
    waiting.deliver("one")
    waiting.promote("pilot")
    check(node, Address("waiting"), "production")
    adopted = scenario("adopted")
    adopted.deliver("one")
    adopt(node, adopted.spec(gates=GATES | {"pilot": {"require": ["nonempty"]}}), reason="more tables")
    withdrawn = scenario("withdrawn")
    for text in ("one", "two"):
        withdrawn.deliver(text)
        withdrawn.promote()
    rollback(withdrawn.node(INES), Address("withdrawn", "production"), reason="The second delivery has `NaN` fares")
    watched = GATES | {"production": {**GATES["production"], "watch": {"checks": ["license"], "on_failure": "hold"}}}
    held, hidden = scenario("held", gates=watched), scenario("retired")
    for each in (held, hidden):
        each.deliver("one")
        each.promote()
    hold = Hold(True, f"metrics: loss is 0.9 {SCRIPT}", node.catalog.resolve(Address("held")), ADA, stamp(now()))
    node.catalog.add(HOLDS, hold, "held", "production")
    retire(node, Address("retired"), "it moved")
    scenario("empty", gates={}, owners={}).deliver("one")
    _large(node)
    _hostile(node, scenario("hostile"))
    _nodes(node)
    return node


def _profile(node: Workspace, dataset: str) -> None:
    """Keep profiles of both versions of a dataset's table."""
    digests = [entry.digest for entry in node.catalog.history(dataset, "latest")]
    for number, digest in enumerate(dict.fromkeys(digests)):
        version = ResolvedVersion(dataset, digest, stored_spec(node, dataset, digest))
        reading = version.spec.contract.tables["trips"].reading
        files = files_digest(list(row_digests(table_files(node, version, ["trips"])["trips"], reading).values()))
        fares = tuple(float(level * (number + 1) % 97) for level in range(LEVELS))
        columns = {
            "fare": ColumnProfile("DOUBLE", "number", 990, 10 * number, 0, 97, 0, 96, 48.2, 9.5, tuple(sorted(fares))),
            "kind": ColumnProfile(
                "VARCHAR",
                "text",
                1000,
                distinct=2,
                counts={"x": 700 - 200 * number, "y": 300},
                names={"x": "x", "y": "y"},
            ),
        }
        profile = TableProfile(1000, columns, {}, ("fare", "kind"), files)
        put_kept(node.catalog, PROFILES, profile, dataset, table="trips", digest=digest)
        drift = {"distances": {"fare": 0.04 + 0.1 * number}}
        results = [
            {"table": "trips", "expectation": "fare is between 0 and 500", "column": "fare", "severity": "critical"}
            | {"verdict": verdict, "rows": 1000, "refused": refused, "examples": ["-3"] * bool(refused), "seconds": 0.2}
            for verdict, refused in (("passed", 0), ("failed", 12))
        ]
        put_evidence(
            node.catalog,
            dataset,
            digest,
            [
                Evidence("drift", Outcome.PASS, "2 columns within 0.140", "ai", measured=drift, at=stamp(now())),
                Evidence(
                    "expectations",
                    Outcome.FAIL,
                    "1 of 2 failed",
                    "data",
                    measured={"results": results},
                    at=stamp(now()),
                ),
                Evidence("metrics", Outcome.FAIL, "loss is 0.9, and may be 0.5", "ai", at=stamp(now())),
            ],
        )


def put(
    node: Workspace, dataset: str, entries: list[Entry], source: str = "s3://lake/flights/", who: str = "ada"
) -> str:
    """Make a version of entries without staging any byte; gives its digest."""
    sealed = seal(entries)
    pin = Pin("etag", "x", "strong")
    origins = [Origin(e.path, source, e.path, e.size, pin, "server", e.digest) for e in entries]
    put_version(node.catalog, dataset, sealed, entries, origins)
    head = node.catalog.ref(dataset, "latest")
    node.catalog.move_ref(
        dataset, "latest", sealed.digest, head=head, action=RefAction.STAGE, who=Identity(who, "declared")
    )
    return sealed.digest


def _large(node: Workspace) -> None:
    entries = [
        Entry(
            f"images/{number // 1000:03d}/{number:06d}-{'long-name-' * 8}.jpg", 1000 + number, f"blake3:{number:064x}"
        )
        for number in range(LARGE)
    ]
    put(node, "large", entries[: LARGE // 2])
    put(node, "large", [replace(entry, size=1) for entry in entries[:5]] + entries[5:])


def _hostile(node: Workspace, scenario: Scenario) -> None:
    staged = scenario.deliver("one", owners=OWNERS | {"data": f"{SCRIPT}@example.org, javascript:alert(1)"})
    paths = sorted(
        [f"<img src=x onerror=alert(1)>{'.' * 9}.csv", "a b/\u202egpj.exe", f"{'w' * 250}/{'w' * 250}", "`x`.csv"]
    )
    digest = put(
        node, "hostile", [Entry(path, 1, f"blake3:{'0' * 64}") for path in paths], f"https://{HOSTILE}", HOSTILE
    )
    evidence = [
        Evidence(
            check_name,
            outcome,
            HOSTILE,
            HOSTILE,
            severity,
            findings=(Finding(HOSTILE, HOSTILE, HOSTILE),) * 3,
            at=HOSTILE,
        )
        for check_name, outcome, severity in (
            ("license", Outcome.FAIL, Severity.BLOCKING),
            (HOSTILE, Outcome.WARN, Severity.WARNING),
        )
    ]
    result = dict.fromkeys(("table", "expectation", "column", "severity", "verdict", "observed"), HOSTILE)
    measured = {"results": [result | {"examples": [HOSTILE] * 5}], "distances": {"x": "y"}}
    evidence.append(
        Evidence("expectations", Outcome.PASS, HOSTILE, "data", measured=measured, binding={"node": HOSTILE})
    )
    put_evidence(node.catalog, "hostile", digest, evidence)
    canonical = staged_spec(node.catalog, "hostile", staged.digest)
    assert canonical
    put_spec(node.catalog, "hostile", digest, canonical)
    scenario.promote("pilot")
    check(node, Address("hostile"), "production")


def _nodes(node: Workspace) -> None:
    digest = node.catalog.resolve(Address("passed", "production"))
    other = node.catalog.resolve(Address("waiting", "pilot"))
    gpu = NodeRecord(
        "gpu-1",
        stamp(now()),
        "/mnt/nvme/stagegate",
        (HeldVersion("passed", digest, 24), HeldVersion("waiting", other, 3, 1, fetching=True)),
        {"passed@production": digest},
        10**12,
        3 * 10**11,
        "fra-1",
        "http://gpu-1.example.org:8444",
        {"NVIDIA H100 80GB HBM3": 8},
    )
    put_node(node.catalog, gpu)
    put_node(node.catalog, replace(gpu, name="gpu-2", at="2026-01-01T00:00:00.000000Z", versions=()))
    put_node(
        node.catalog,
        replace(gpu, name="gpu-3", cache=HOSTILE, site=HOSTILE, url=HOSTILE, gpus={HOSTILE: 1}, environment=HOSTILE),
    )
