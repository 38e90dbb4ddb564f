"""Whatever a source does, the cache shows nothing that is wrong, and a later run completes it."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_stagegate.cache import Cache
from prefect_stagegate.errors import (
    AccessDenied,
    ChecksumMismatch,
    ObjectChanged,
    ObjectVanished,
    SourceUnavailable,
    StagegateError,
    TransferFailed,
)
from prefect_stagegate.transport.transfer import Limits, retry
from tests.support.scripted import ScriptedSource, fetch_all

PART = 64 * 1024
SIZES = st.sampled_from([0, 1, 4095, 4096, PART - 1, PART, PART + 1, 3 * PART, 5 * PART + 17])
FAILURES = st.sampled_from([AccessDenied, ChecksumMismatch, ObjectChanged, ObjectVanished, SourceUnavailable])


@pytest.fixture(autouse=True, scope="module")
def _impatient() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retry, "FIRST_WAIT", 0.0)
        yield


def digest(data: bytes) -> str:
    return f"blake3:{blake3(data).hexdigest()}"


def check(cache: Cache) -> None:
    """Every blob that can be seen is what its name says."""
    for path in cache.layout.blobs.glob("*/*"):
        assert digest(path.read_bytes()) == f"blake3:{path.name}"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.dictionaries(
        st.text("abc/", min_size=1, max_size=4).filter(lambda key: "//" not in key), SIZES, max_size=6
    ),
    failures=st.lists(st.none() | FAILURES, max_size=12),
    spoilt=st.integers(0, 3),
    in_flight=st.integers(1, 6),
    buffers=st.integers(1, 5),
    seed=st.integers(0, 100),
)
def test_nothing_wrong_is_ever_visible(
    sizes: dict[str, int],
    failures: list[type[StagegateError] | None],
    spoilt: int,
    in_flight: int,
    buffers: int,
    seed: int,
) -> None:
    source = ScriptedSource({key: random.Random(seed).randbytes(size) for key, size in sizes.items()})
    source.failures.extend(failure and failure("scripted") for failure in failures)  # type: ignore[misc]
    left = [spoilt]

    def spoil(data: bytes) -> bytes:
        if not left[0] or not data:
            return data
        left[0] -= 1
        return data[:-1] + bytes([data[-1] ^ 1])

    source.spoil = spoil
    limits = Limits(in_flight=in_flight, part=PART, memory=buffers * PART)
    expected = {key: digest(data) for key, data in source.objects.items()}
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache.open(Path(folder))
        run = fetch_all(source, cache, limits=limits)
        with suppress(TransferFailed):
            assert {receipt.path: receipt.digest for receipt in run} == expected
        assert {failure.object for failure in run.stats.failures} <= set(expected)
        check(cache)
        source.failures.clear()
        left[0] = 0
        again = fetch_all(source, cache, limits=limits)
        assert {receipt.path: receipt.digest for receipt in again} == expected
        check(cache)
        assert list(cache.layout.ingest.iterdir()) == []
        source.reads.clear()
        assert {receipt.path: receipt.digest for receipt in fetch_all(source, cache, limits=limits)} == expected
        assert source.reads == []
