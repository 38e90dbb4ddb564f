"""Publication.

A check that a dataset is described well enough for others to use it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from prefect_stagegate.errors import did_you_mean
from prefect_stagegate.gate.base import CheckResult, Parameters
from prefect_stagegate.gate.check_context import Binding, CheckContext
from prefect_stagegate.gate.registry import Check, Renewal
from prefect_stagegate.model import Finding, Outcome
from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.spec import Spec
from prefect_stagegate.spec.documentation import PublicationSpec, RaiSpec
from prefect_stagegate.units import count_text

Group = Literal["core", "rai"]
CORE = ("description", "url", "creators", "published")
"""Keys of `publication` that Croissant 1.1 requires, besides the licence."""
RAI = (
    *("data_limitations", "data_biases", "personal_sensitive_information", "data_use_cases", "data_social_impact"),
    *("has_synthetic_data", "was_derived_from", "was_generated_by"),
)
"""Keys of `rai` that the NeurIPS 2026 Evaluations and Datasets Track asks for."""

DOCUMENTATION = Binding(
    "documentation",
    lambda context: digest_of({key: context.spec.canonical().get(key) for key in ("license", "publication", "rai")}),
)


def _rai_key(key: str) -> str:
    if key not in RaiSpec.model_fields:
        raise ValueError(f"`rai` has no key {key!r}; {did_you_mean(key, RaiSpec.model_fields)}")
    return key


class Croissant(Parameters):
    """The defaults are what Croissant 1.1 requires and what conferences and hubs ask for besides."""

    groups: tuple[Group, ...] = Field(
        default=("core", "rai"),
        description="Which keys must be written.",
        examples=[["core"]],
    )
    also: tuple[Annotated[str, AfterValidator(_rai_key)], ...] = Field(
        default=(),
        description="Further keys of `rai` that must be written.",
        examples=[["data_annotation_protocol"]],
    )


@Check("croissant", owner="governance", binds=(DOCUMENTATION, "policy"), renewal=Renewal.CHEAP)
def croissant(context: CheckContext, parameters: Croissant) -> CheckResult:
    """Whether the spec says what `stagegate show --croissant` needs: each key passes, one missing fails.

    `core` is what Croissant 1.1 requires: licence, description, page, creators and day of publication. `rai` is what
    the NeurIPS 2026 Datasets Track asks for: limitations, biases, personal data, uses, social impact, synthetic data,
    origin.
    """
    missing = [
        *(_missing_core(context.spec) if "core" in parameters.groups else ()),
        *_missing_rai(context.spec, (*(RAI if "rai" in parameters.groups else ()), *parameters.also)),
    ]
    measured = {"missing": [finding.subject for finding in missing]}
    if missing:
        summary = f"{count_text(len(missing), 'key')} of the description {'is' if len(missing) == 1 else 'are'} missing"
        return CheckResult(Outcome.FAIL, summary, tuple(missing), measured)
    return CheckResult(Outcome.PASS, "the description is complete", measured=measured)


def _missing_core(spec: Spec) -> list[Finding]:
    missing = [] if spec.license else [Finding("license", "is not written", "Write the data's SPDX name: license: MIT")]
    return missing + [
        _missing("publication", key, PublicationSpec) for key in CORE if getattr(spec.publication, key) in (None, ())
    ]


def _missing_rai(spec: Spec, keys: tuple[str, ...]) -> list[Finding]:
    return [_missing("rai", key, RaiSpec) for key in dict.fromkeys(keys) if getattr(spec.rai, key) in (None, ())]


def _missing(section: str, key: str, model: type[PublicationSpec] | type[RaiSpec]) -> Finding:
    meaning = (model.model_fields[key].description or "").removesuffix(".")
    fix = f"Write `{key}:` below `{section}:` in the spec: {meaning[0].lower()}{meaning[1:]}."
    return Finding(f"{section}.{key}", "is not written", fix)
