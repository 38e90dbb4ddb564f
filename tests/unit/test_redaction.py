"""What counts as a secret in URLs and options, and how logs and chains of errors lose theirs."""

from __future__ import annotations

import json
import logging
import time
import traceback
from io import StringIO
from pathlib import Path

import pytest

from prefect_stagegate.errors import SourceError, SpecError
from prefect_stagegate.redaction import remember, remember_access
from prefect_stagegate.redaction.chains import RedactingFilter, redact_chain
from prefect_stagegate.redaction.known import REMEMBERED, Redactor
from prefect_stagegate.redaction.option_secrets import secrets_of

CANARY = "CANARY+token/9f8e7d6c5b4a"


def test_secrets_of_urls_and_options_are_found() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\n-----END PRIVATE KEY-----\n"
    secrets = secrets_of(
        "https://me:pass%2Fword@host/a?v=2013&sig=abc%2Bdef",
        {
            "client_kwargs": {"headers": {"Authorization": "Bearer tok-123"}},
            "token": json.dumps({"type": "service_account", "private_key": key}),
            "connection_string": "AccountName=acme;AccountKey=a2V5==;EndpointSuffix=x",
            "password": ["first-one", b"second-one"],
            "endpoint_url": "http://user:proxied@host/",
        },
    )
    wanted = {"pass%2Fword", "pass/word", "abc+def", "tok-123", "a2V5==", "first-one", "second-one", "proxied"}
    assert wanted | {"MIIEvQIBADANBgkqhkiG9w0B"} <= set(secrets)
    assert not {"2013", "service_account", "acme"} & set(secrets)


def test_paths_of_secrets_are_no_secrets(tmp_path: Path) -> None:
    assert secrets_of("", {"PWD": str(tmp_path), "token": str(tmp_path)}) == []
    long = "/" + "a" * 5000
    assert long in secrets_of("", {"AWS_SESSION_TOKEN": long})


def test_errors_redact_their_own_text() -> None:
    remember_access("", {"token": CANARY})
    error = SourceError(f"The server says {CANARY}", hint=f"Drop {CANARY}", source=f"s3://{CANARY}/", object=CANARY)
    assert CANARY not in f"{error} {error.message} {error.hint} {error.args}"
    assert error.object == CANARY, "an object is found by its name"
    assert CANARY not in f"{(wrong := SpecError('a.yaml', [f'token: {CANARY}']))} {wrong.problems}"


def test_logs_lose_secrets_in_messages_and_tracebacks() -> None:
    remember(CANARY)
    written = StringIO()
    handler = logging.StreamHandler(written)
    handler.addFilter(RedactingFilter())
    log = logging.getLogger("stagegate-test")
    log.propagate = False
    log.addHandler(handler)
    error = ValueError(CANARY)
    log.error("asked with %s by %d", CANARY, 3, exc_info=(ValueError, error, None))
    assert written.getvalue().startswith("asked with *** by 3\n")
    assert "ValueError: ***" in written.getvalue()
    assert CANARY not in written.getvalue()


def test_a_chain_that_leads_to_itself_ends() -> None:
    remember(CANARY)
    first, second = ValueError(CANARY), KeyError("harmless")
    first.__cause__, second.__cause__ = second, first
    first.add_note(f"with {CANARY}")
    clean = redact_chain(first)
    assert clean
    text = "".join(traceback.format_exception(clean))
    assert "ValueError: ***" in text
    assert "with ***" in text
    assert CANARY not in text


@pytest.mark.parametrize("run", ["\\", "\\u0", "%25", '"', " "])
def test_a_long_run_of_escapes_is_redacted_soon(run: str) -> None:
    redactor = Redactor()
    redactor.remember([CANARY])
    text = f"token {run * 65_536}{CANARY}"
    begin = time.process_time()
    assert CANARY not in redactor.redact(text)
    assert time.process_time() - begin < 5  # 60 seconds when each backslash was searched to the run's end


def test_what_was_named_longest_ago_is_forgotten() -> None:
    redactor = Redactor()
    redactor.remember(f"secret-{number:05d}" for number in range(REMEMBERED + 1))
    assert redactor.redact("secret-00000 secret-00001") == "secret-00000 ***"
