"""A scenario whose catalog somebody else writes to."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.support.keys import write_key
from tests.support.scenario import INES, Scenario


def make_key(folder: Path, name: str) -> str:
    """Write `NAME.pem` and its public half, whose path it returns."""
    return str(write_key(folder / f"{name}.pem", Ed25519PrivateKey.generate()).with_suffix(".pub"))


class AttackedScenario(Scenario):
    """A scenario whose catalog somebody writes to."""

    def entry(self, seq: int) -> Path:
        return self.folder / f"catalog/datasets/things/refs/production/{seq:08d}.json"

    def forge_promotion(self, digest: str, seq: int = 2) -> None:
        """Append a promotion of a version; all of it fits but for signatures."""
        before = self.entry(seq - 1).read_bytes()
        entry = json.loads(before)
        statement = entry["attestation"]
        statement["subject"][0]["digest"]["sha256"] = digest.removeprefix("sha256:")
        statement["predicate"]["stagegate"]["decision"] |= {"digest": digest, "after": seq - 1}
        if request := statement["predicate"]["stagegate"]["request"]:
            request["digest"] = digest
        chained = {"seq": seq, "digest": digest, "before": f"sha256:{hashlib.sha256(before).hexdigest()}"}
        who = {"name": "mallory", "source": "declared"}
        self.entry(seq).write_text(json.dumps({**entry, **chained, "who": who, "attestation": statement}))

    def promote_and_forge(self) -> tuple[str, str]:
        """Promote a version, and forge the promotion of its successor; returns both digests."""
        self.deliver("one")
        first, second = self.promote_signed(), self.deliver("two").digest
        self.forge_promotion(second)
        return first, second

    def promote_two(self) -> str:
        """Promote a version and its successor; returns the successor's digest."""
        for text in ("one", "two"):
            self.deliver(text)
            digest = self.promote_signed()
        return digest

    def forge_rollback(self) -> None:
        """Promote two versions, and append a rollback to the first that nobody signed."""
        self.forge_return(action="rollback", withdrawn=self.promote_two(), reason="so")

    def forge_return(self, **changes: Any) -> None:
        """Append an entry by which the first version was accepted, as the third."""
        chained = {"seq": 3, "before": f"sha256:{hashlib.sha256(self.entry(2).read_bytes()).hexdigest()}"}
        self.entry(3).write_text(json.dumps({**json.loads(self.entry(1).read_bytes()), **chained, **changes}))

    def forge_withdrawal(self, digest: str) -> None:
        """Append a withdrawal of the version that the first entry named, with that entry's attestation."""
        chained = {"seq": 2, "before": f"sha256:{hashlib.sha256(self.entry(1).read_bytes()).hexdigest()}"}
        changes = {"action": "withdraw", "withdrawn": digest}
        self.entry(2).write_text(json.dumps({**json.loads(self.entry(1).read_bytes()), **chained, **changes}))

    def on_another_node(self, *words: str) -> int:
        self.on["cache"] = self.folder / "elsewhere"
        try:
            return self.run(*words)
        finally:
            self.on["cache"] = self.folder / "cache"

    def promote_signed(self) -> str:
        """Check, have Ines sign where it waits, check, and promote."""
        if self.run("check", "things", "--gate", "production") == 4:
            key = str(self.folder / "ines.pem")
            assert not self.run("approve", "things", "--to", "production", "--key", key, identity=INES.name)
            assert not self.run("check", "things", "--gate", "production")
        assert not self.run("promote", "things", "--to", "production")
        return self.head("production")


def signing_scenario(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AttackedScenario:
    """A gate without an approval; the settings have the key that signs decisions."""
    monkeypatch.setenv("STAGEGATE_VERIFICATION_KEYS", make_key(folder, "node"))
    monkeypatch.setenv("STAGEGATE_SIGNING_KEY", str(folder / "node.pem"))
    return AttackedScenario(folder, gates={"production": {"require": ["license"]}})
