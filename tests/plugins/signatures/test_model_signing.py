"""Signatures of a version's files: made here and verified by the reference command, and the other way round."""

from __future__ import annotations

import json
import re
import shutil
import sys
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from model_signing import verifying

from prefect_stagegate.errors import CacheError, SpecError, UnknownRef, UsageError
from prefect_stagegate.jobs.address import read_spec
from prefect_stagegate.jobs.gating.check import check
from prefect_stagegate.jobs.gating.policy import difference
from prefect_stagegate.model import Address, DecisionOutcome, Direction
from prefect_stagegate.plugins.signatures import sign as signing_job
from prefect_stagegate.plugins.signatures import signature as signature_check
from prefect_stagegate.plugins.signatures.sign import sign
from prefect_stagegate.plugins.signatures.signature_bundle import MODEL_SIGNATURES, read_statement_key, sign_statement
from prefect_stagegate.plugins.signatures.signed_files import write_statement
from tests.plugins.signatures.signers import CLIENT, SERVER, Authority, model_signing
from tests.support.keys import pem, write_key
from tests.support.scenario import Scenario

SIGNED = Path(__file__).parent / "signed"
"""Two files and their publisher's signature by identity, unchanged from the tests of the reference implementation
(sigstore/model-transparency, `scripts/tests/v1.1.0-sigstore`, Apache-2.0)."""
WHO = {"subject": "stefanb@us.ibm.com", "issuer": "https://sigstore.verify.ibm.com/oauth2"}
THINGS = Address("things")


def scenario(folder: Path, **parameters: Any) -> Scenario:
    """A dataset of two files, whose gate asks for a signature."""
    things = Scenario(folder, gates={"pilot": {"require": [{"signature": {"of": "oms", **parameters}}]}})
    (things.nas / "d").mkdir(exist_ok=True)
    (things.nas / "d" / "b.bin").write_bytes(bytes(3_000_000))
    things.write("day,reading\n")
    return things


def judged(things: Scenario, cache: str = "") -> tuple[str, str, list[tuple[str, str]]]:
    """The outcome of the check, its summary, and its findings by subject and problem."""
    (evidence,) = check(things.node(cache=cache), THINGS, "pilot").checks
    return evidence.outcome, evidence.summary, [(each.subject, each.problem) for each in evidence.findings]


def publish(things: Scenario, key: Path, *words: str | Path) -> None:
    """Sign the source's folder as its publisher does."""
    signature = things.nas / "model.sig"
    done = model_signing("sign", "key", "--private_key", key, "--signature", signature, *words, things.nas)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_key(tmp_path / "key.pem", ec.generate_private_key(ec.SECP256R1()))


def public(key: Path) -> str:
    return key.with_suffix(".pub").read_text()


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: str(curve.name))
def test_signed_here_and_verified_by_the_command(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    key = write_key(tmp_path / "key.pem", ec.generate_private_key(curve))
    things = scenario(tmp_path, keys=[public(key)], ignore=[".gitattributes"])
    (things.nas / ".gitattributes").write_text("*.bin binary\n")
    view = things.stage().path
    output = tmp_path / "model.sig"
    assert judged(things)[:2] == ("fail", "neither the version nor the catalog has a signature of its files")
    assert things.run("sign", "things", "--key", str(key), "--output", str(output)) == 0
    words = ("verify", "key", "--public_key", key.with_suffix(".pub"), "--signature", output)
    assert model_signing(*words, view).returncode == 0
    outcome, summary, _ = judged(things)
    assert (outcome, re.sub("[0-9a-f]{12}$", "…", summary)) == ("pass", "2 files signed by the key sha256:…")
    # The command notices what it is for.
    changed = shutil.copytree(view, tmp_path / "changed")
    (changed / "data.csv").chmod(0o600)
    (changed / "data.csv").write_text("day,readinh\n")
    assert re.search("Hash mismatch for .*data[.]csv", model_signing(*words, changed).stderr)


def test_blake3_signature_reads_nothing_and_verifies(tmp_path: Path, key: Path) -> None:
    things = scenario(tmp_path, keys=[public(key)])
    view = things.stage().path
    sign(things.node(), THINGS, key)  # by SHA-256: without the files it says nothing
    elsewhere = things.node(cache="elsewhere")  # a node that lacks the version
    signed = sign(elsewhere, THINGS, key, algorithm="blake3")
    assert (signed.files, signed.bytes_read) == (2, 0)
    output = tmp_path / "model.sig"
    output.write_text(json.dumps(dict(signed.bundle)))
    verifying.Config().use_elliptic_key_verifier(public_key=key.with_suffix(".pub")).verify(view, output)
    assert judged(things, "elsewhere")[0] == "pass"
    # Only the library finds the algorithm in the signature; its command hashes by sha256.
    words = ("verify", "key", "--public_key", key.with_suffix(".pub"), "--signature", output)
    assert "Hash mismatch" in model_signing(*words, view).stderr


def test_publisher_s_signature_in_the_version_passes(tmp_path: Path, key: Path) -> None:
    keys = [pem(ec.generate_private_key(ec.SECP384R1())), public(key)]
    things = scenario(tmp_path, keys=keys, ignore=[".gitignore"])
    (things.nas / ".gitignore").write_text("*.tmp\n")
    publish(things, key)
    things.stage()
    outcome, summary, findings = judged(things)
    assert (outcome, summary[:25], findings) == ("pass", "2 files signed by the key", [])


def test_publisher_s_files_may_lie_in_a_folder(tmp_path: Path, key: Path) -> None:
    things = scenario(tmp_path, keys=[public(key)], signature="models/tiny/model.sig", partial=True)
    publish(things, key)
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "data.csv").write_text("not the publisher's")
    sources = [{"url": str(things.nas), "into": "models/tiny/"}, {"url": str(tmp_path / "reference")}]
    things.stage(sources=sources)
    outcome, summary, findings = judged(things)
    assert (outcome, summary.partition("; ")[2]) == ("pass", "1 file not signed")
    assert findings == [("data.csv", "it is not signed")]
    things.write("day,readinh\n")
    things.stage(sources=sources)
    assert judged(things)[2] == [("models/tiny/data.csv", "its bytes are not those that were signed")]


@pytest.mark.parametrize("algorithm", ["blake2", "blake3"])
def test_publisher_s_other_algorithms_are_verified(tmp_path: Path, key: Path, algorithm: str) -> None:
    from model_signing import hashing, signing

    things = scenario(tmp_path, keys=[public(key)])
    how = hashing.Config().use_file_serialization(hashing_algorithm=algorithm)  # type: ignore[arg-type]
    config = signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(how)
    config.sign(things.nas, things.nas / "model.sig")
    things.stage()
    assert judged(things)[0] == "pass"
    (things.nas / "d" / "b.bin").write_bytes(bytes(2_999_999) + b"1")
    things.stage()
    assert judged(things)[2] == [("d/b.bin", "its bytes are not those that were signed")]


NOT_COUNTED = "the signature does not count: "


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        ("byte", ("data.csv", "its bytes are not those that were signed")),
        ("extra", ("d/c.txt", "it is not signed")),
        ("missing", ("d/b.bin", "it was signed, and the version lacks it")),
        ("payload", ("model.sig", f"{NOT_COUNTED}no key under `keys` signed it, or it was changed since")),
        ("signature", ("model.sig", f"{NOT_COUNTED}no key under `keys` signed it, or it was changed since")),
        ("no JSON", ("model.sig", f"{NOT_COUNTED}it is no Sigstore bundle: : Invalid JSON: ")),
        ("empty", ("model.sig", f"{NOT_COUNTED}it is empty, or larger than 67.1 MB")),
    ],
)
def test_damage_is_refused_by_name(tmp_path: Path, key: Path, damage: str, finding: tuple[str, str]) -> None:
    things = scenario(tmp_path, keys=[public(key)])
    publish(things, key)
    signature = things.nas / "model.sig"
    bundle = json.loads(signature.read_text())
    envelope = bundle["dsseEnvelope"]
    match damage:
        case "byte":
            things.write("day,readinh\n")
        case "extra":
            (things.nas / "d" / "c.txt").write_text("more")
        case "missing":
            (things.nas / "d" / "b.bin").unlink()
        case "payload":
            envelope["payload"] = flipped(envelope["payload"])
        case "signature":
            envelope["signatures"][0]["sig"] = flipped(envelope["signatures"][0]["sig"])
    text = {"no JSON": "<b>", "empty": ""}.get(damage, json.dumps(bundle))
    signature.write_text(text)
    things.stage()
    outcome, summary, findings = judged(things)
    ((subject, problem),) = findings
    assert (outcome, subject, problem[: len(finding[1])]) == ("fail", *finding)
    assert summary == f"{subject}: {problem}"
    assert check(things.node(), THINGS, "pilot").outcome is DecisionOutcome.REFUSED


def flipped(text: str) -> str:
    """Base64 with another letter in its middle."""
    middle = len(text) // 2
    return text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]


def test_another_s_key_does_not_count(tmp_path: Path, key: Path) -> None:
    things = scenario(tmp_path, keys=[pem(ec.generate_private_key(ec.SECP256R1()))])
    publish(things, key)
    things.stage()
    sign(things.node(), THINGS, key)
    outcome, _, findings = judged(things)
    reason = f"{NOT_COUNTED}no key under `keys` signed it, or it was changed since"
    assert (outcome, findings) == ("fail", [("the catalog's signature", reason), ("model.sig", reason)])


def junk(things: Scenario, key: Path, count: int) -> None:
    """Put signatures into the catalog that do not count: a stranger's, and one of other files."""
    catalog, digest = things.node().catalog, things.head("latest")
    statements = [write_statement("things", "sha256", [(name, "0" * 64)]) for name in ("data.csv", "other.csv")]
    signers = [ec.generate_private_key(ec.SECP256R1()), read_statement_key(key, lambda _: "")]
    bundles = [sign_statement(statement, signer) for statement, signer in zip(statements, signers, strict=True)]
    for number in range(count):
        catalog.add(MODEL_SIGNATURES, dict(bundles[number % 2]), "things", digest)


def test_signatures_that_do_not_count_hide_none_that_does(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    things = scenario(tmp_path, keys=[public(key)])
    things.stage()
    sign(things.node(), THINGS, key)
    junk(things, key, 30)
    assert judged(things)[0] == "pass"
    # Beyond a bound they do, and the newest still counts.
    monkeypatch.setattr(signature_check, "MOST_SIGNATURES", 30)
    junk(things, key, 2)
    outcome, _, findings = judged(things)
    assert (outcome, len(findings)) == ("fail", 5)
    assert findings[-1] == ("the catalog's signature", "there are more than the newest 30, which are read")
    sign(things.node(), THINGS, key)
    assert judged(things)[0] == "pass"
    monkeypatch.setattr(signature_check, "MOST_READ", 10)
    junk(things, key, 1)
    assert judged(things)[2] == [("the catalog's signature", "there are more than the newest 0, which are read")]


def test_signature_that_is_too_large_is_read_in_part(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    things = scenario(tmp_path, keys=[public(key)])
    things.stage()
    junk(things, key, 1)
    catalog = things.node().catalog
    (record,) = catalog.numbers(MODEL_SIGNATURES, "things", things.head("latest"))
    assert (
        len(catalog.records.read_end(MODEL_SIGNATURES.path("things", things.head("latest"), record), 101) or b"") == 101
    )


def test_signature_of_another_version_does_not_count(tmp_path: Path, key: Path) -> None:
    things = scenario(tmp_path, keys=[public(key)])
    things.stage()
    signed = sign(things.node(), THINGS, key)
    second = things.deliver("day,reading\n2026-01-01,1\n")
    things.node().catalog.add(MODEL_SIGNATURES, dict(signed.bundle), "things", second.digest)
    assert judged(things)[2] == [("data.csv", "its bytes are not those that were signed")]


def test_unsigned_files_pass_where_the_gate_says_so(tmp_path: Path, key: Path) -> None:
    things = scenario(tmp_path, keys=[public(key)], partial=True)
    publish(things, key)
    for number in range(52):
        (things.nas / f"more-{number:02}.txt").write_text("more")
    things.stage()
    outcome, summary, findings = judged(things)
    assert (outcome, summary.partition("; ")[2]) == ("pass", "52 files not signed")
    assert [findings[0], findings[-1]] == [("more-00.txt", "it is not signed"), ("2 more files", "it is not signed")]


def test_signature_of_none_of_the_files_is_refused(tmp_path: Path, key: Path) -> None:
    things = scenario(tmp_path, keys=[public(key)], partial=True, ignore=["docs"])
    version = things.stage()
    statement = write_statement("things", "blake3", [("docs/a.md", "0" * 64)])
    bundle = sign_statement(statement, read_statement_key(key, lambda _: ""))
    things.node().catalog.add(MODEL_SIGNATURES, dict(bundle), "things", version.digest)
    outcome, _, findings = judged(things)
    assert (outcome, findings) == ("fail", [("d/b.bin", "it is not signed"), ("data.csv", "it is not signed")])


@pytest.mark.parametrize(("ignored", "findings"), [([], [("notes/1.md", "it is not signed")]), (["notes"], [])])
def test_gate_and_not_the_signer_says_what_is_ignored(
    tmp_path: Path, key: Path, ignored: list[str], findings: list[tuple[str, str]]
) -> None:
    things = scenario(tmp_path, keys=[public(key)], ignore=ignored)
    (things.nas / "notes").mkdir()
    (things.nas / "notes" / "1.md").write_text("draft")
    publish(things, key, "--ignore-paths", things.nas / "notes")
    things.stage()
    assert judged(things)[2] == findings


def test_certificates_both_ways(tmp_path: Path) -> None:
    root, other = Authority("root"), Authority("root")
    between = Authority("between", root)
    signer = Authority("Example Publisher", between, may_certify=False)
    key = write_key(tmp_path / "key.pem", signer.key)
    chain, root_file = tmp_path / "chain.pem", tmp_path / "root.pem"
    chain.write_text(signer.text + between.text)
    root_file.write_text(root.text)
    things = scenario(tmp_path, certificates=[other.text, root.text], signers=["CN=Example Publisher"])
    view = things.stage().path
    output = tmp_path / "model.sig"
    words = ["--key", str(key), "--certificate", str(chain), "--output", str(output)]
    assert things.run("sign", "things", *words) == 0
    words = ["verify", "certificate", "--certificate_chain", str(root_file), "--signature", str(output)]
    verified = model_signing(*words, view)
    assert verified.returncode == 0, verified.stderr
    assert judged(things)[:2] == ("pass", "2 files signed by the certificate of 'CN=Example Publisher'")


@pytest.mark.parametrize(
    ("signer", "reason"),
    [
        ({"above": "other"}, "no root under `certificates` vouches"),
        ({"may_sign": False}, "'CN=x' is not for this purpose"),
        ({"above": "customer"}, "no root under `certificates` vouches"),
        ({"above": "clerk"}, "no root under `certificates` vouches"),
        ({"purpose": SERVER}, "'CN=x' is not for this purpose (1.3.6.1.5.5.7.3.3)"),
        ({"purpose": CLIENT}, "'CN=x' is not for this purpose"),
        ({"purpose": ""}, "'CN=x' is not for this purpose"),
        (
            {"name": "y", "alternative": "y@example.org"},
            "`signers` names nobody of this certificate: CN=y, y@",
        ),
        ({"began": datetime(2016, 1, 1, tzinfo=UTC)}, "no root under `certificates` vouches"),
    ],
    ids=[
        "other root",
        "no signatures",
        "no authority",
        "no such key",
        "server",
        "client",
        "no purpose",
        "employee",
        "ended",
    ],
)
def test_certificate_that_may_not_sign_is_refused(tmp_path: Path, signer: dict[str, Any], reason: str) -> None:
    root, other = Authority("root", began=datetime(2016, 1, 1, tzinfo=UTC), days=9999), Authority("root")
    customer, clerk = Authority("customer", root, may_certify=False), Authority("clerk", root, may_certify=None)
    above = {"root": root, "other": other, "customer": customer, "clerk": clerk}[signer.pop("above", "root")]
    publisher = Authority(signer.pop("name", "x"), above, may_certify=False, **signer)
    things = certified(tmp_path, root, publisher, above)
    outcome, summary, _ = judged(things)
    assert (outcome, reason in summary) == ("fail", True), summary


def certified(folder: Path, root: Authority, signer: Authority, *between: Authority, **parameters: Any) -> Scenario:
    """A dataset that somebody signed by a certificate, where the gate has the root."""
    key, chain = write_key(folder / "key.pem", signer.key), folder / "chain.pem"
    chain.write_text("".join(each.text for each in (signer, *between)))
    things = scenario(
        folder, **{"certificates": [root.text], "signers": ["CN=x", "*@release.example.org"], **parameters}
    )
    things.stage()
    sign(things.node(), THINGS, key, certificates=chain)
    return things


@pytest.mark.parametrize(
    ("signer", "parameters"),
    [
        ({"name": "x"}, {}),
        ({"name": "y", "alternative": "ada@release.example.org"}, {}),
        ({"name": "x", "purpose": CLIENT}, {"purpose": CLIENT}),
    ],
    ids=["subject", "alternative name", "another purpose of the policy"],
)
def test_certificate_with_purpose_and_name_signs(
    tmp_path: Path, signer: dict[str, Any], parameters: dict[str, Any]
) -> None:
    root = Authority("root")
    things = certified(tmp_path, root, Authority(above=root, may_certify=False, **signer), **parameters)
    assert judged(things)[0] == "pass"


def test_root_without_signers_is_refused_by_file_and_line(tmp_path: Path) -> None:
    things = scenario(tmp_path, certificates=[Authority("root").text])
    with pytest.raises(SpecError, match=r"\.yaml:\d+: gates\.pilot.*`certificates` needs `signers`"):
        read_spec(things.spec_file())


def test_recorded_root_without_signers_stays_readable(tmp_path: Path) -> None:
    root = Authority("root")
    things = certified(tmp_path, root, Authority("x", root, may_certify=False), signers=[])
    outcome, summary, _ = judged(things)
    assert (outcome, "`signers` names nobody" in summary) == ("fail", True), summary


@pytest.mark.parametrize("name", [".gitattributes", ".git/config", ".github/data.csv"])
def test_file_that_the_format_leaves_out_fails_by_name(tmp_path: Path, key: Path, name: str) -> None:
    things = scenario(tmp_path, keys=[public(key)])
    (things.nas / name).parent.mkdir(exist_ok=True)
    (things.nas / name).write_text("day,reading\n1,2\n")
    publish(things, key)
    things.stage()
    assert judged(things)[2] == [(name, "it is not signed")]


def sigstore_root(instance: str) -> str:
    """The trust root of an instance of Sigstore, as the library has it."""
    store = files("sigstore") / "_store"
    (root,) = (each / "trusted_root.json" for each in store.iterdir() if each.name.endswith(instance))
    return root.read_text()


def publisher_s(folder: Path, **identity: str) -> Scenario:
    things = Scenario(folder, gates={"pilot": {"require": [{"signature": {"identity": WHO | identity}}]}})
    shutil.copytree(SIGNED, things.nas, dirs_exist_ok=True)
    things.stage()
    return things


def test_identity_that_sigstore_vouches_for_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nobody is asked
    things = publisher_s(tmp_path)
    summary = f"2 files signed by {WHO['subject']} ({WHO['issuer']})"
    assert judged(things)[:2] == ("pass", summary)
    (things.nas / "signme-1").write_text("signme-2")
    things.stage()
    assert judged(things)[2] == [("signme-1", "its bytes are not those that were signed")]


@pytest.mark.parametrize(
    ("identity", "reason"),
    [
        ({"trust_root": sigstore_root("sigstore.dev")}, ""),
        ({"trust_root": sigstore_root("sigstage.dev")}, "Sigstore does not vouch for stefanb@us.ibm.com"),
        ({"subject": "release@example.org"}, "Sigstore does not vouch for release@example.org"),
        ({"issuer": "https://accounts.google.com"}, "Sigstore does not vouch for stefanb@us.ibm.com"),
        ({"trust_root": "{}"}, "Sigstore's trust root can't be read"),
    ],
    ids=["its root", "another instance", "another subject", "another issuer", "no root"],
)
def test_another_identity_is_refused(tmp_path: Path, identity: dict[str, str], reason: str) -> None:
    root = {"trust_root": sigstore_root("sigstore.dev")}
    outcome, summary, _ = judged(publisher_s(tmp_path, **root | identity))
    expected = "pass" if not reason else "inconclusive" if "trust root" in reason else "fail"
    assert (outcome, reason in summary) == (expected, True), summary


def test_identity_without_the_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    things = publisher_s(tmp_path)
    monkeypatch.setitem(sys.modules, "sigstore.models", None)
    outcome, summary, findings = judged(things)
    assert (outcome, "sigstore, which is not installed" in summary) == ("inconclusive", True), (summary, findings)


def test_gate_that_trusts_nobody_is_inconclusive(tmp_path: Path, key: Path) -> None:
    things = scenario(tmp_path)
    things.stage()
    sign(things.node(), THINGS, key)
    assert judged(things)[:2] == ("inconclusive", "the gate trusts nobody's signature")


def test_files_that_are_not_on_the_node_give_no_result(tmp_path: Path, key: Path) -> None:
    things = scenario(tmp_path, keys=[public(key)])
    things.stage()
    sign(things.node(), THINGS, key)
    outcome, summary, _ = judged(things, "elsewhere")
    assert (outcome, "is not in the cache" in summary) == ("inconclusive", True), summary
    with pytest.raises(UnknownRef, match="is not in the cache"):
        sign(things.node(cache="elsewhere"), THINGS, key)


def test_rotten_file_is_not_signed(tmp_path: Path, key: Path) -> None:
    things = scenario(tmp_path, keys=[public(key)])
    version = things.stage()
    rotten = version.path / "data.csv"
    rotten.chmod(0o644)
    rotten.write_text("day,readinh\n")
    with pytest.raises(CacheError, match="not the manifest's") as refused:
        sign(things.node(), THINGS, key)
    assert "stagegate verify --repair" in refused.value.hint
    assert things.node().catalog.numbers(MODEL_SIGNATURES, "things", version.digest) == []


def test_too_many_files_and_none_are_not_signed(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    things = scenario(tmp_path)
    things.stage()
    monkeypatch.setattr(signing_job, "MOST_BYTES", 100)
    with pytest.raises(UsageError, match="nobody reads more than 100 B"):
        sign(things.node(), THINGS, key)
    monkeypatch.setattr(signing_job, "MOST_FILES", 1)
    with pytest.raises(UsageError, match="2 files are too many for one signature: 1 at most"):
        sign(things.node(), THINGS, key)
    shutil.rmtree(things.nas)
    (things.nas / ".git").mkdir(parents=True)
    (things.nas / ".git" / "config").write_text("[core]")
    things.stage()
    with pytest.raises(UsageError, match="no file to sign"):
        sign(things.node(), THINGS, key)


def test_unsuitable_keys_are_refused(tmp_path: Path, key: Path) -> None:
    things = scenario(tmp_path)
    things.stage()
    key.chmod(0o644)
    with pytest.raises(UsageError, match="can be read by everybody"):
        sign(things.node(), THINGS, key)
    for other in (ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256K1())):
        with pytest.raises(UsageError, match="no P-256, P-384 or P-521 key") as refused:
            sign(things.node(), THINGS, write_key(tmp_path / "other.pem", other))
        assert "prime256v1" in refused.value.hint
    key.chmod(0o600)
    certificate = tmp_path / "certificate.pem"
    certificate.write_text(Authority("root").text)
    with pytest.raises(UsageError, match=r"first certificate in .* is not the key's"):
        sign(things.node(), THINGS, key, certificates=certificate)
    with pytest.raises(UsageError, match="has no certificates in PEM"):
        sign(things.node(), THINGS, key, certificates=key)


def test_passphrase_is_asked_for_and_never_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = tmp_path / "key.pem"
    private = ec.generate_private_key(ec.SECP256R1())
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    key.chmod(0o600)
    things = scenario(tmp_path)
    things.stage()
    assert things.run("sign", "things", "--key", str(key)) == 2
    assert "passphrase" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"keys": ["ed25519:" + "0f" * 32]}, "no public key in PEM"),
        ({"keys": [pem(ed25519.Ed25519PrivateKey.generate())]}, "no P-256, P-384 or P-521 key"),
        ({"certificates": ["-----BEGIN"]}, "no certificate in PEM"),
        ({"identity": {"subject": "a@example.org"}}, "issuer"),
        ({"identity": {**WHO, "trust_root": "/etc/root.json"}}, "trust_root"),
        ({"identity": {**WHO, "trust_root": "[" * 200_000}}, "trust_root: .*nested too deeply"),
        ({"of": "pgp"}, "oms"),
    ],
)
def test_unusable_trust_is_refused_at_load(tmp_path: Path, parameters: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        scenario(tmp_path, **parameters).stage()


def test_sign_tells_what_it_did(tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    things = scenario(tmp_path)
    (things.nas / ".gitignore").write_text("*.tmp\n")
    version = things.stage()
    words = ("sign", "things@latest", "--key", str(key), "--output", str(tmp_path / "model.sig"))
    assert things.run(*words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    expected = {"dataset": "things", "digest": version.digest, "algorithm": "sha256", "files": 2}
    assert told | expected == told
    assert (told["left_out"], told["bytes_read"], len(told["key"])) == ([".gitignore"], 3_000_018, 64)
    assert things.run(*words, "--algorithm", "blake3") == 0
    assert "2 files signed, nothing was read" in capsys.readouterr().out


@pytest.mark.parametrize("output", ["missing/model.sig", "."])
def test_unwritable_output_is_told_before_signing(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    things = scenario(tmp_path)
    version = things.stage()
    assert things.run("sign", "things", "--key", str(key), "--output", str(tmp_path / output)) == 2
    assert "The signature can't be written to" in capsys.readouterr().err
    assert not things.node().catalog.numbers(MODEL_SIGNATURES, "things", version.digest)


@pytest.mark.parametrize(
    ("change", "direction"),
    [
        ({"partial": True}, Direction.LOOSENED),
        ({"ignore": [".git", "README.md", "more.csv"]}, Direction.LOOSENED),
        ({"ignore": []}, Direction.TIGHTENED),
        ({"ignore": ["README.md"]}, Direction.TIGHTENED),
        ({"ignore": [".git", "more.csv"]}, Direction.LOOSENED),
    ],
)
def test_policy_diff_tells_whether_more_may_be_unsigned(
    tmp_path: Path, key: Path, change: dict[str, Any], direction: Direction
) -> None:
    gate = {"keys": [public(key)], "ignore": [".git", "README.md"]}
    things = scenario(tmp_path, **gate)
    things.stage()
    new = things.spec(gates={"pilot": {"require": [{"signature": {"of": "oms", **gate, **change}}]}})
    (change_of_policy,) = difference(things.node(), new)
    assert change_of_policy.direction is direction
