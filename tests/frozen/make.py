"""Write `store.tar.xz` and `documents.json` anew: `.venv/bin/python -m tests.frozen.make`, on a node with nothing else.

Only for a new format: what is here now must stay readable for ever.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HERE = Path(__file__).parent
ROOT = Path("/tmp/stagegate-frozen")
"""In the records, as the sources' address."""

ALIKE = ("schema", "nonempty", "coverage", "expectations", "license", "owner", "lineage", "runbook")
NOT_ALIKE = ("croissant", "drift", "pii", "space", "inodes", "cache_fit", "cache_integrity", "parity_python")
"""Checks whose outcome differs by node."""
SUITE = {
    "expectations": [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "price", "min_value": 0}}]
}
SPEC: dict[str, Any] = {
    "stagegate": 1,
    "dataset": "things",
    "owners": {"data": "data@example.org", "ai": "ai@example.org", "infra": "ines", "governance": "legal"},
    "license": "CC0-1.0",
    "runbook": "https://wiki.example.org/things",
    "sources": [{"url": str(ROOT / "nas"), "include": ["*.csv"]}],
    "contract": {
        "tables": {"things": {"files": "*.csv", "suite": "suite.yaml", "columns": {"day": "date", "price": "double"}}},
        "files": [{"match": "*.csv", "probes": ["text"]}],
    },
    "gates": {
        "pilot": {
            "require": [
                *ALIKE,
                *({name: {"severity": "info"}} for name in NOT_ALIKE),
            ]
        },
        "production": {"extends": "pilot", "require": ["digest", {"approval": {"count": 1, "from": ["infra"]}}]},
    },
    "policy": {"change": {"approval": {"count": 1, "from": ["governance"]}}},
}
DOCUMENTS = (
    "ls",
    "ls things",
    "show things@production",
    "history things@production",
    "history things@production --verify",
    "decisions things",
    "policy show things",
    "policy history things",
    "path things@production",
    "diff things@production things@latest",
    "status things",
    "where things@production",
    "nodes",
)
"""Commands that read."""


def main() -> None:
    """Lead a dataset through all kinds of records, then read them."""
    shutil.rmtree(ROOT, ignore_errors=True)
    (ROOT / "nas").mkdir(parents=True)
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (ROOT / "key.pem").write_bytes(Ed25519PrivateKey.generate().private_bytes(*pem))
    (ROOT / "key.pem").chmod(0o600)
    (ROOT / "suite.yaml").write_text(yaml.safe_dump(SUITE))
    (ROOT / "things.yaml").write_text(yaml.safe_dump(SPEC))

    deliver("2026-03-01,1.5", "2026-03-02,2.5")
    lead_to_production()
    deliver("2026-03-01,1.5", "2026-03-02,-1")
    run("check things@latest --gate pilot", 1)
    run("waive things@latest --gate pilot --check expectations --reason known --until 9d", who="data@example.org")
    run("check things@latest --gate pilot")
    run("promote things@latest --to pilot")
    deliver("2026-03-01,1.5", "2026-03-02,2.5", "2026-03-03,3.5")
    lead_to_production()
    run("rollback things@production --reason worse", who="ines")
    run("revoke things@latest --check license --reason doubt", who="ines")
    SPEC["gates"]["production"]["require"].append({"rollback": {"severity": "info"}})
    (ROOT / "things.yaml").write_text(yaml.safe_dump(SPEC))
    adopt = f"policy adopt {ROOT}/things.yaml --reason stricter"
    run(adopt, 4)
    run("policy approve things --reason agreed", who="legal")
    run(adopt)

    (ROOT / "key.pub").write_text(run(f"key {ROOT}/key.pem"))
    with tarfile.open(HERE / "store.tar.xz", "w:xz") as archive:
        for name in ("cache", "catalog", "key.pub"):
            archive.add(ROOT / name, name)
    documents = {command: json.loads(run(f"{command} --json")) for command in DOCUMENTS}
    (HERE / "documents.json").write_text(json.dumps(documents) + "\n")


def deliver(*rows: str) -> None:
    """Stage a version with these rows."""
    (ROOT / "nas/data.csv").write_text("\n".join(["day,price", *rows, ""]))
    run(f"stage {ROOT}/things.yaml")


def lead_to_production() -> None:
    """Promote the newest version to both targets."""
    run("check things@latest --gate pilot")
    run("promote things@latest --to pilot")
    run("check things@latest --gate production", 4)
    run("approve things@latest --to production --reason seen", who="ines")
    run("check things@latest --gate production")
    run("promote things@latest --to production")


def run(command: str, code: int = 0, who: str = "ada") -> str:
    """Run the command line as somebody, and return what it printed."""
    settings = {
        "STAGEGATE_CACHE": str(ROOT / "cache"),
        "STAGEGATE_CATALOG": str(ROOT / "catalog"),
        "STAGEGATE_IDENTITY": who,
        "STAGEGATE_NODE": "node-a",
        "STAGEGATE_SIGNING_KEY": str(ROOT / "key.pem"),
    }
    words = [str(Path(sys.executable).with_name("stagegate")), *shlex.split(command)]
    result = subprocess.run(words, env=os.environ | settings, capture_output=True, text=True, check=False)
    assert result.returncode == code, (command, result.returncode, result.stdout, result.stderr)
    return result.stdout


if __name__ == "__main__":
    main()
