"""Parameters of the check `approval`: the people who must agree, and the keys by which they sign."""

from __future__ import annotations

import re
import subprocess
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefect_stagegate.clock import moment
from prefect_stagegate.errors import MissingExtra, SpecError, StagegateError
from prefect_stagegate.gate.approval_counting import count_answers, why_unanswerable
from prefect_stagegate.gate.approval_parameters import ApprovalParameters
from prefect_stagegate.gate.records import ssh_signatures
from prefect_stagegate.gate.records.allowed_signers import read_allowed_signers
from prefect_stagegate.gate.records.answers import SSHSIG
from prefect_stagegate.jobs.address import policy_of, read_spec
from prefect_stagegate.jobs.review.inbox_lines import RequestState, policy_line
from prefect_stagegate.model import Approval, ApprovalRequest, Identity

ROOT = Path(__file__).parents[2]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIddDPKB/6CkY1crm/agcmJDVO04dKApzrtfx5n7zimq"
SIGNERS = f"ines@example.org {KEY} ines\n"
ADA, INES, OLEG = (Identity(f"{name}@example.org", "declared") for name in ("ada", "ines", "oleg"))
REQUEST = ApprovalRequest("r1", "things", "sha256:1", "pilot", "sha256:2", ADA, "2026-03-01T03:00:00.000000Z", after=0)


def spec_of(**approval: Any) -> dict[str, Any]:
    return {
        "stagegate": 1,
        "dataset": "things",
        "sources": [{"url": "file:///nas/"}],
        "gates": {"pilot": {"require": [{"approval": approval}]}},
        "policy": {"change": {"approval": approval}},
    }


def written(folder: Path, **approval: Any) -> Path:
    path = folder / "things.yaml"
    path.write_text(yaml.safe_dump(spec_of(**approval)))
    return path


def reply(who: Identity, **changes: Any) -> Approval:
    return Approval("r1", who, **{"approved": True, "reason": "", "at": "2026-03-01T04:00:00.000000Z", **changes})


# ── allowed_signers ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_policy_covers_the_text_of_the_file(tmp_path: Path) -> None:
    path, file = written(tmp_path, signed=True, allowed_signers="allowed_signers"), tmp_path / "allowed_signers"
    file.write_text(SIGNERS)
    spec = read_spec(path)
    policy = policy_of(spec)
    assert policy["gates"]["pilot"]["require"][0]["approval"]["allowed_signers"] == SIGNERS
    assert policy["policy"]["change"]["approval"]["allowed_signers"] == SIGNERS
    assert read_spec(spec.canonical()) == spec
    file.write_text(SIGNERS.replace("ines@", "oleg@"))
    assert read_spec(path).gate("pilot").policy != spec.gate("pilot").policy


def test_example_on_the_page_loads(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/approve.md").read_text()
    (gates,) = re.findall(r"```yaml\n(gates:[^`]*allowed_signers[^`]*)```", page)
    (signers,) = re.findall(r"```\n(# allowed_signers.*?)```", page, re.DOTALL)
    (tmp_path / "allowed_signers").write_text(signers)
    path = tmp_path / "things.yaml"
    path.write_text(yaml.safe_dump({key: spec_of()[key] for key in ("stagegate", "dataset", "sources")}) + gates)
    (requirement,) = read_spec(path).gate("production").requirements
    assert requirement.params["allowed_signers"] == signers


def test_text_of_signers_is_taken_as_it_is(tmp_path: Path) -> None:
    text = (
        f'# people\n\n"Ines B*,!x@example.org" namespaces="git,stagegate-approval" {KEY}\n@x cert-authority {KEY} a\n'
    )
    spec = read_spec(written(tmp_path, signed=True, allowed_signers=text))
    assert spec.gate("pilot").requirements[0].params["allowed_signers"] == text


@pytest.mark.parametrize(
    ("approval", "problem"),
    [
        ({"signed": True, "allowed_signers": "missing"}, r"allowed_signers: .*missing does not exist"),
        (
            {"signed": True, "allowed_signers": "secret"},
            r"line 1 of the allowed signers has no principals with a public",
        ),
        ({"signed": True, "allowed_signers": f"{SIGNERS}me ssh-ed25519\n"}, "line 2 of the allowed signers"),
        ({"signed": True, "allowed_signers": "https://example.org/signers"}, "lies on another server than the spec"),
        ({"signed": True, "allowed_signers": "# nobody yet\n"}, "has no line with a key"),
        ({"signed": True, "allowed_signers": "word"}, "has no line with a key"),
        (
            {"signed": True, "allowed_signers": f"{SIGNERS}x valid-before=20270101 {KEY}"},
            "line 2 .* option that OpenSSH",
        ),
        ({"signed": True, "allowed_signers": f'x valid-before="2027-01-01" {KEY}'}, "valid-before that is no time"),
        ({"signed": True, "allowed_signers": f"x no-touch-required {KEY}"}, "option that OpenSSH does not read"),
        ({"signed": True, "allowed_signers": "x ssh-ed25519 AAAA"}, "line 1 of the allowed signers has a damaged key"),
        ({"signed": True, "allowed_signers": f"x {KEY[:-4]}"}, "line 1 of the allowed signers has a damaged key"),
        ({"signed": True, "allowed_signers": f"# a\x0cx {KEY}"}, "has no line with a key"),
        ({"allowed_signers": SIGNERS}, "`allowed_signers` needs `signed: true`"),
        ({"signed": True}, "`signed` needs the `keys` or the `allowed_signers`"),
        ({"signed": True, "allowed_signers": SIGNERS * 900}, "must have at most 64 KiB"),
    ],
)
def test_signers_that_can_not_be_used_are_refused(tmp_path: Path, approval: dict[str, Any], problem: str) -> None:
    (tmp_path / "word").write_text("#none")
    (tmp_path / "secret").write_text("password: hunter2 of ssh-ed25519 keys\n")
    with pytest.raises(SpecError, match=problem) as caught:
        read_spec(written(tmp_path, **approval))
    assert "hunter2" not in str(caught.value)


def test_recorded_policy_names_no_file_of_the_node(tmp_path: Path) -> None:
    file = tmp_path / "allowed_signers"
    file.write_text(SIGNERS)
    with pytest.raises(SpecError, match="must be the text itself"):
        read_spec(spec_of(signed=True, allowed_signers=str(file)))


def test_policies_from_before_keep_their_digests() -> None:
    assert ApprovalParameters().model_dump(mode="json", by_alias=True) == {
        "count": 1,
        "from": [],
        "signed": False,
        "keys": {},
    }


def test_fewer_keys_than_approvals_can_never_suffice() -> None:
    twice = f"{SIGNERS}oleg@example.org {KEY} the same key\n"
    parameters = ApprovalParameters(signed=True, allowed_signers=twice, count=2)
    assert why_unanswerable(parameters, {}) == "2 approvals needed, each by another key; keys: 1"
    authority = ApprovalParameters(signed=True, allowed_signers=f"* cert-authority {KEY}", count=2)
    assert not why_unanswerable(authority, {})


def test_key_in_both_lists_is_one_key() -> None:
    raw = b64decode(KEY.split()[1])[-32:]
    parameters = ApprovalParameters(
        signed=True, allowed_signers=SIGNERS, keys={INES.name: f"ed25519:{raw.hex()}"}, count=2
    )
    assert why_unanswerable(parameters, {}) == "2 approvals needed, each by another key; keys: 1"


@pytest.mark.parametrize(
    ("principals", "name", "matches"),
    [
        ("*@example.org", "ines@example.org", True),
        ("!ines@*,*@example.org", "ines@example.org", False),
        ("*@example.org,!ines@*", "ines@example.org", False),
        ('"Ines B*"', "Ines Berg", True),
        ("in?s", "ines", True),
        ("ine[s]", "ines", False),
        ("Ines", "ines", False),
    ],
)
def test_principals_match_as_openssh_matches(principals: str, name: str, matches: bool) -> None:
    (signer,) = read_allowed_signers(f"{principals} {KEY}")
    assert signer.has_name(name) is matches


# ── who has yet to agree ────────────────────────────────────────────────────────────────────────────────────────────


def test_required_people_are_awaited_beside_the_count() -> None:
    parameters = ApprovalParameters(count=2, required=("Ines@example.org",))
    nobody = count_answers(REQUEST, [], parameters, {})
    assert nobody.missing == "0 of 2 approvals by anybody, Ines@example.org must agree"
    oleg = count_answers(REQUEST, [reply(OLEG), reply(Identity("pat", "declared"))], parameters, {})
    assert (oleg.missing, oleg.missing_people) == ("Ines@example.org must agree", 1)
    assert not count_answers(REQUEST, [reply(OLEG), reply(INES)], parameters, {}).missing


def test_inbox_names_the_one_who_must_still_agree() -> None:
    owners = {"infra": f"{INES.name}, {OLEG.name}, pat@example.org"}
    for groups in (("infra",), ()):
        parameters = ApprovalParameters.model_validate({"count": 2, "from": groups, "required": (INES.name,)})
        state = RequestState(REQUEST, count_answers(REQUEST, [reply(OLEG)], parameters, owners))
        line = policy_line("things", [state], owners, is_proposed=False)
        assert line
        assert [person.contact for person in line.actions[0].people] == [INES.name]


def test_signed_answer_that_is_dated_ahead_does_not_count() -> None:
    """Whoever has a key that is not valid yet would else say that it is."""
    parameters = ApprovalParameters(signed=True, allowed_signers=SIGNERS)
    ahead = reply(INES, at="2999-01-01T00:00:00.000000Z", envelope={SSHSIG: "armored"})
    ((ignored, why),) = count_answers(REQUEST, [ahead], parameters, {}).ignored
    assert ignored == ahead
    assert "it is dated 2999-01-01T00:00:00.000000Z, so a clock is wrong" in why


# ── ssh-keygen ──────────────────────────────────────────────────────────────────────────────────────────────────────


def put_ssh_keygen(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a script in place of ssh-keygen."""
    path = folder / "ssh-keygen"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    ssh_signatures.verify_ssh_signature.cache_clear()


def count(signature: str = "armored") -> str:
    parameters = ApprovalParameters(signed=True, allowed_signers=SIGNERS)
    answer = reply(INES, envelope={SSHSIG: signature})
    return count_answers(REQUEST, [answer], parameters, {}).missing


def test_absent_ssh_keygen_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ssh_signatures.verify_ssh_signature.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match="apt-get install openssh-client"):
        count()


@pytest.mark.parametrize(
    "script",
    [
        "exit 0",
        "echo 'Good day'",
        "echo 'usage: ssh-keygen' >&2; exit 1",
        "echo 'Could not verify signature.'; echo 'Invalid option \"verify-time=1\"' >&2; exit 255",
        "kill -9 $$",
    ],
)
def test_ssh_keygen_that_can_not_tell_is_an_error(script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_ssh_keygen(tmp_path, script, monkeypatch)
    with pytest.raises(StagegateError, match=r"ssh-keygen can't verify signatures.*OpenSSH 8\.9"):
        count()


def test_line_for_the_shell_runs_no_word_of_a_name(tmp_path: Path) -> None:
    name = "x'; touch one; $(touch two) `touch three`\ntouch four #"
    line = ssh_signatures.verification_line(name, moment(REQUEST.at), "1.json", "1.json.sig")
    subprocess.run(["/bin/sh", "-c", line], cwd=tmp_path, capture_output=True, check=False)
    assert not list(tmp_path.iterdir())


def test_ssh_keygen_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_ssh_keygen(tmp_path, "exec sleep 600", monkeypatch)
    monkeypatch.setattr(ssh_signatures, "VERIFY_SECONDS", 0.2)
    with pytest.raises(StagegateError, match="did not end within"):
        count()


def test_ssh_keygen_gets_no_word_of_a_signature_as_an_option(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_ssh_keygen(
        tmp_path, f'printf "%s\\n" "$@" > {tmp_path}/words; echo "Could not verify signature."; exit 255', monkeypatch
    )
    assert count("-f /etc/passwd") == "0 of 1 approval by anybody"
    words = (tmp_path / "words").read_text().splitlines()
    assert words[words.index("-I") + 1] in (INES.name, ADA.name)
    assert not [word for word in words if "passwd" in word]
