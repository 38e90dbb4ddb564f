"""Tokens of programs: what is kept, what they grant, and what none is ever made for."""

from __future__ import annotations

import json
import re
import stat
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from prefect_stagegate.clock import moment, now, stamp
from prefect_stagegate.errors import CatalogError, CorruptRecord, UsageError
from prefect_stagegate.plugins.tokens import token_records
from prefect_stagegate.plugins.tokens.token_records import (
    TOKENS,
    USED,
    TokenUse,
    create_token,
    grant_of,
    revoke_token,
    token_lines,
)
from prefect_stagegate.redaction import redact
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace
from tests.support.scenario import Scenario


@pytest.fixture
def node(tmp_path: Path) -> Workspace:
    return Scenario(tmp_path).node()


def token(node: Workspace, may: str = "stage") -> tuple[str, str]:
    line, text = create_token(node, "ci", [may], [], 30)
    return line.id, text


def test_token_grants_what_it_was_made_for(node: Workspace) -> None:
    _, text = token(node, "check,stage")
    grant = grant_of(node, text)
    assert grant
    assert grant.scopes == {"read", "stage", "check"}
    assert grant.name.startswith("ci (")
    assert grant.covers("anything")


def test_reading_is_all_that_is_implied(node: Workspace) -> None:
    grant = grant_of(node, create_token(node, "ci", [], [], 1)[1])
    assert grant
    assert grant.scopes == {"read"}


@pytest.mark.parametrize("change", ["secret", "id", "shape", "longer", "empty"])
def test_other_text_grants_nothing(node: Workspace, change: str) -> None:
    token_id, text = token(node)
    other_id, _ = token(node)
    last = "A" if text[-1] != "A" else "B"
    texts = {
        "secret": text[:-1] + last,
        "id": text.replace(token_id, other_id),
        "shape": text.replace("sgt_", "SGT_"),
        "longer": f"{text}\n",
        "empty": f"sgt_{token_id}_",
    }
    assert grant_of(node, texts[change]) is None


def test_expired_token_grants_nothing(node: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = token(node)
    later = now() + timedelta(days=30, seconds=1)
    monkeypatch.setattr(token_records, "now", lambda: later)
    assert grant_of(node, text) is None
    assert token_lines(node.catalog, UnreadableRecords())[0].state == "expired"


def test_token_without_an_end_is_damaged(node: Workspace) -> None:
    (token_id, text), (other, _) = token(node), token(node)
    known = node.catalog.require(TOKENS, "token", token_id, 1)
    node.catalog.put(TOKENS, replace(known, ends="never"), "token", token_id, 1)
    with pytest.raises(CorruptRecord, match="has no end"):
        grant_of(node, text)
    assert [line.id for line in token_lines(node.catalog, UnreadableRecords())] == [other]


def test_revoked_token_grants_nothing(node: Workspace) -> None:
    token_id, text = token(node)
    first = revoke_token(node, token_id, "moved")
    assert first.revoked
    assert revoke_token(node, token_id, "again").revoked == first.revoked
    assert grant_of(node, text) is None


def test_damaged_revocation_lets_nobody_in(node: Workspace, tmp_path: Path) -> None:
    token_id, text = token(node)
    revoke_token(node, token_id, "moved")
    (tmp_path / f"catalog/tokens.revoked/token/{token_id}/00000001.json").write_text("{}")
    with pytest.raises(CorruptRecord):
        grant_of(node, text)


def test_record_under_another_id_is_refused(node: Workspace, tmp_path: Path) -> None:
    token_id, text = token(node)
    made = tmp_path / "catalog/tokens.made/token"
    (made / token_id).rename(made / ("0" * 12))
    with pytest.raises(CatalogError, match="about another token"):
        grant_of(node, text.replace(token_id, "0" * 12))


@pytest.mark.parametrize("word", ["promote", "approve", "waive", "rollback", "adopt", "stage,promote"])
def test_no_token_may_do_what_people_do(node: Workspace, word: str) -> None:
    with pytest.raises(UsageError, match="people answer, and a policy's approvals count people"):
        create_token(node, "ci", [word], [], 30)
    assert token_lines(node.catalog, UnreadableRecords()) == []


@pytest.mark.parametrize(
    ("holder", "may", "dataset", "days", "message"),
    [
        ("ci", "stag", "", 30, "did you mean 'stage'"),
        ("ci", "", "", 30, "'' is nothing that a token may do"),
        (" ", "stage", "", 30, "A token is for somebody"),
        ("ci", "stage", "", 0, "1 to 365 days, not 0"),
        ("ci", "stage", "", 366, "1 to 365 days, not 366"),
        ("ci", "stage", "things", 30, "no dataset 'things'"),
        ("ci", "stage", "../x", 30, "is not a dataset's name"),
    ],
)
def test_unusable_token_is_not_made(
    node: Workspace, holder: str, may: str, dataset: str, days: int, message: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        create_token(node, holder, [may], [dataset] if dataset else [], days)


def test_use_is_noted_once_in_five_minutes(node: Workspace) -> None:
    token_id, text = token(node)
    key = ("token", token_id, 1)
    grant_of(node, text)
    first = node.catalog.require(USED, *key)
    grant_of(node, text)
    assert node.catalog.require(USED, *key) == first
    node.catalog.put(USED, TokenUse(stamp(now() - timedelta(seconds=301))), *key)
    grant_of(node, text)
    assert moment(node.catalog.require(USED, *key).at) >= moment(first.at)


def test_unnoted_use_ends_no_token(node: Workspace, tmp_path: Path) -> None:
    _, text = token(node)
    (tmp_path / "catalog/tokens.used").write_text("no folder")
    assert grant_of(node, text)


def test_secret_is_in_no_record_and_no_list(
    node: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, text = token(node)
    grant_of(node, text)
    scenario = Scenario(tmp_path)
    assert [scenario.run("token", "list", *more) for more in ([], ["--json"])] == [0, 0]
    shown = capsys.readouterr()
    kept = [path.read_text() for path in (tmp_path / "catalog").rglob("*.json")]
    assert len(kept) == 2
    assert text[17:] not in "".join([*kept, shown.out, shown.err])
    assert redact(f"GET /?x={text} failed for {text}") == "GET /?x=*** failed for ***"


def test_commands_make_list_and_end_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario, file = Scenario(tmp_path), tmp_path / "token"
    scenario.node()
    assert scenario.run("token", "create", "--for", "ci", "--may", "stage,check", "--output", str(file)) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text().strip()
    assert text not in capsys.readouterr().out
    assert scenario.run("token", "create", "--for", "other", "--output", str(file)) == 2
    assert file.read_text().strip() == text
    capsys.readouterr()
    scenario.run("token", "list", "--json")
    (line,) = json.loads(capsys.readouterr().out)
    assert (line["holder"], line["scopes"], line["state"]) == ("ci", ["read", "stage", "check"], "valid")
    assert "sha256" not in line
    assert scenario.run("token", "revoke", text, "--reason", "x") == 2
    assert text not in capsys.readouterr().err
    assert scenario.run("token", "revoke", line["id"], "--reason", "moved") == 0
    scenario.run("token", "list")
    assert f"{line['id']} was revoked on" in capsys.readouterr().out
    assert scenario.run("token", "create", "--for", "ci", "--json") == 0
    assert json.loads(capsys.readouterr().out)["token"].startswith("sgt_")


def test_failed_creation_leaves_no_file(tmp_path: Path) -> None:
    scenario, file = Scenario(tmp_path), tmp_path / "token"
    scenario.node()
    assert scenario.run("token", "create", "--for", "ci", "--may", "promote", "--output", str(file)) == 2
    assert not file.exists()


def test_damaged_token_is_listed_as_unreadable(node: Workspace) -> None:
    token_id, _ = token(node)
    made = node.catalog.require(TOKENS, "token", token_id, 1)
    node.catalog.put(TOKENS, replace(made, id="0" * 12), "token", token_id, 1)
    unreadable = UnreadableRecords()
    assert token_lines(node.catalog, unreadable) == []
    assert "about another token" in unreadable.all[0].problem
