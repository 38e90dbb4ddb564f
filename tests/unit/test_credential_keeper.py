"""A credential is handed out at once, whatever its provider does, and renewed before it ends."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from prefect_stagegate.transport.objectstore import keeper
from prefect_stagegate.transport.objectstore.keeper import Credential, CredentialKeeper
from tests.support.waiting import eventually

AT_ONCE = 1.0
"""Seconds within which what doesn't wait has returned, on a busy machine too."""


def lasting(value: str, seconds: float) -> Credential[str]:
    return Credential(value, datetime.now(UTC) + timedelta(seconds=seconds))


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "PAUSE_SECONDS", 0.0)


class Provider:
    """Gives `credential` when it is let go; counts who asks at once."""

    def __init__(self, credential: Credential[str] | None) -> None:
        self.credential = credential
        self.gate = threading.Event()
        self.calls = self.most = self._now = 0

    def __call__(self) -> Credential[str]:
        self.calls += 1
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            assert self.gate.wait(10)
        finally:
            self._now -= 1
        if self.credential is None:
            raise ConnectionError("the identity service is away")
        return self.credential


def test_current_waits_for_no_provider() -> None:
    provider = Provider(lasting("new", 3600))
    kept = CredentialKeeper(provider, lasting("old", 60))
    start = time.monotonic()
    assert [kept.current() for _ in range(1000)] == ["old"] * 1000
    assert time.monotonic() - start < AT_ONCE
    assert eventually(lambda: provider.calls == 1)
    provider.gate.set()
    assert eventually(lambda: kept.current() == "new")
    assert provider.calls == provider.most == 1


def test_first_credential_is_fetched_in_the_background() -> None:
    provider = Provider(lasting("first", 3600))
    kept = CredentialKeeper(provider)
    assert kept.current() is None
    provider.gate.set()
    assert eventually(lambda: kept.current() == "first")


def test_prepare_waits_for_the_first_credential() -> None:
    provider = Provider(lasting("first", 3600))
    kept = CredentialKeeper(provider)
    provider.gate.set()
    kept.prepare()
    assert kept.current() == "first"
    kept.prepare()
    assert provider.calls == 1


def test_many_threads_ask_the_provider_once() -> None:
    provider = Provider(lasting("first", 3600))
    kept = CredentialKeeper(provider)
    threads = [threading.Thread(target=kept.prepare) for _ in range(8)]
    for thread in threads:
        thread.start()
    provider.gate.set()
    for thread in threads:
        thread.join()
    assert provider.calls == 1


def test_a_failing_provider_keeps_the_old_credential() -> None:
    provider = Provider(None)
    provider.gate.set()
    kept = CredentialKeeper(provider, lasting("old", -1))
    kept.prepare()
    assert kept.current() == "old"
    provider.credential = lasting("new", 3600)
    assert eventually(lambda: kept.current() == "new")


def test_a_failing_provider_without_any_raises_nothing() -> None:
    provider = Provider(None)
    provider.gate.set()
    kept = CredentialKeeper(provider)
    kept.prepare()
    assert kept.current() is None


def test_a_failing_provider_is_waited_for_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "PAUSE_SECONDS", 3600.0)
    provider = Provider(None)
    provider.gate.set()
    kept = CredentialKeeper(provider)
    for _ in range(100):
        kept.prepare()
    assert provider.calls == 1


def test_an_ended_credential_is_not_handed_out_meanwhile() -> None:
    provider = Provider(lasting("new", 3600))
    kept = CredentialKeeper(provider, lasting("old", -1))
    assert kept.current() is None
    provider.gate.set()
    assert eventually(lambda: kept.current() == "new")


def test_a_provider_of_short_lives_is_asked_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "PAUSE_SECONDS", 3600.0)
    provider = Provider(lasting("short", 30))
    provider.gate.set()
    kept = CredentialKeeper(provider)
    kept.prepare()
    assert [kept.current() for _ in range(100)] == ["short"] * 100
    assert provider.calls == 1


def test_a_credential_without_end_is_never_renewed() -> None:
    provider = Provider(None)
    kept = CredentialKeeper(provider, Credential("key"))
    kept.prepare()
    assert (kept.current(), provider.calls) == ("key", 0)


def test_no_thread_left_leaves_the_old_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = Provider(lasting("new", 3600))
    provider.gate.set()
    kept = CredentialKeeper(provider, lasting("old", 60))

    def exhausted(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", exhausted)
        assert kept.current() == "old"
    assert eventually(lambda: kept.current() == "new")
