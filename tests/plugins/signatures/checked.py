"""What the check of signatures looks at, for `tests/contract/test_checks.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from prefect_stagegate.gate.check_context import Fact
from prefect_stagegate.plugins.signatures.signature import digests_of_files, file_bytes, kept_signatures
from prefect_stagegate.plugins.signatures.signature_bundle import sign_statement
from prefect_stagegate.plugins.signatures.signed_files import write_statement
from tests.support.keys import pem

SIGNER = ec.generate_private_key(ec.SECP256R1())
NAMED: dict[str, dict[str, Any]] = {"signature": {"keys": [pem(SIGNER)]}}
PRESENT: dict[Fact[Any, Any], Any] = {kept_signatures: lambda: iter(())}


def failing(look: Callable[[str], Any]) -> dict[Fact[Any, Any], Any]:
    return {fact: look(fact.__name__) for fact in (digests_of_files, file_bytes, kept_signatures)}


def nothing(_root: Path) -> dict[Fact[Any, Any], Any]:
    return {kept_signatures: lambda: iter([signed("a.parquet")]), digests_of_files: lambda _: iter(())}


def signed(*paths: str) -> bytes:
    """A valid signature of files."""
    statement = write_statement("nycflights", "sha256", ((path, "0a" * 32) for path in paths))
    return json.dumps(sign_statement(statement, SIGNER)).encode()
