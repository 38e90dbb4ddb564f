"""Whatever names and texts reach a metric, what is written stays valid, bounded, and says what was counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from prefect_stagegate.plugins.observe.monitoring import exposition as module
from prefect_stagegate.plugins.observe.monitoring.exposition import exposition, label_value
from prefect_stagegate.plugins.observe.monitoring.families import (
    BYTES,
    CHECKS,
    LONGEST,
    REF_MOVED,
    STEP_SECONDS,
    Durations,
    Sample,
)

HOSTILE = st.one_of(
    st.text(max_size=400),
    st.text(st.characters(codec=None), max_size=20),  # lone surrogates, too
    st.sampled_from(
        ['"} 1\n# EOF\nevil 1', "\\", "\\n", "\x1b[2J", "\u202egnp.exe", "x" * 10_000, "\r\n", "\x00", "# HELP a"]
    ),
)
PAIRS = st.tuples(HOSTILE, HOSTILE)


@given(st.lists(PAIRS, max_size=20))
def test_hostile_labels_keep_the_text_valid(pairs: list[tuple[str, str]]) -> None:
    samples: list[Sample | Durations] = [Sample(BYTES, pair, 2.0) for pair in pairs]
    samples += [Sample(REF_MOVED, pair, 1.0) for pair in pairs]
    samples += [Durations(STEP_SECONDS, pair[:1], (1.0,) * 11, 3.0) for pair in pairs]
    plain = {family.name: family for family in text_string_to_metric_families(exposition(samples).decode())}
    text = exposition(samples, openmetrics=True).decode()
    strict = {family.name for family in openmetrics_families(text)}  # type: ignore[no-untyped-call]
    assert strict == plain.keys() <= {"stagegate_build_info", BYTES.name, REF_MOVED.name, STEP_SECONDS.name}
    if pairs:
        # What is the same once it is cut counts together, so nothing that was counted is lost.
        assert sum(sample.value for sample in plain[BYTES.name].samples) == 2.0 * len(pairs)
        assert len(plain[REF_MOVED.name].samples) == len({tuple(map(label_value, pair)) for pair in pairs})


@given(HOSTILE)
def test_label_is_one_legible_line_of_bounded_length(text: str) -> None:
    label = label_value(text)
    assert len(label) <= LONGEST
    assert label.isprintable() or not any(character in "\n\r\x1b\x00\u202e" for character in label)
    assert label == label.encode().decode()


def test_metric_has_a_bounded_number_of_samples() -> None:
    samples = [Sample(CHECKS, (str(number), "pass"), 1.0) for number in range(module.MOST_SAMPLES + 10)]
    assert exposition(samples).count(b"\nstagegate_checks_total{") == module.MOST_SAMPLES
