"""What a gate may set for the check `metrics`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from prefect_stagegate.gate.base import Parameters
from prefect_stagegate.spec import Duration
from prefect_stagegate.spec.fields import CredentialsName, Link, PublicKey, Text, bounded

Name = Annotated[Text, Field(max_length=250)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Age = Annotated[Duration, bounded("1s")]
_ONLY_OF = {"run": ("mlflow", "file"), "keys": ("file",), "labels": ("prometheus",)}
"""Parameters that mean something for some sources of figures alone."""


class NoWorseThan(Parameters):
    """The version that a metric is compared with."""

    ref: Name = Field(
        description="The target whose version counts. Where it names the candidate itself, the one before it.",
        examples=["production"],
    )
    by: Number = Field(default=0.0, ge=0, description="How much worse it may be.", examples=[0.005])
    lower_is_better: bool = Field(
        default=False, description="Whether a lower figure is the better one, as of a loss.", examples=[True]
    )


class MetricBounds(Parameters):
    """What one metric must keep. At least one bound must be given."""

    min: Number | None = Field(default=None, description="The least figure that passes.", examples=[0.8])
    max: Number | None = Field(default=None, description="The greatest figure that passes.", examples=[0.95])
    no_worse_than: NoWorseThan | None = Field(
        default=None,
        description="The version whose figure it is compared with. Before a target has one, it passes.",
        examples=[{"ref": "production", "by": 0.005}],
    )

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.min is None and self.max is None and self.no_worse_than is None:
            raise ValueError("needs `min`, `max` or `no_worse_than`")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("`min` must not be above `max`")
        return self


class LeastSamples(Parameters):
    """How many samples a figure must rest on."""

    name: Name = Field(
        default="samples", description="The metric that says how many there were.", examples=["val/samples"]
    )
    least: int = Field(ge=1, strict=True, description="The fewest that count.", examples=[1000])


class MetricsParameters(Parameters):
    """There are no defaults: what is good enough depends on the model."""

    source: Literal["mlflow", "file", "prometheus"] = Field(
        default="mlflow", alias="from", description="Where the figures are.", examples=["mlflow"]
    )
    url: Link | None = Field(
        default=None,
        description="The address of MLflow or Prometheus; for `file` a web address or an absolute path, in which "
        "`{digest}` is the version's 64 digits.",
        examples=["https://mlflow.example.org"],
    )
    credentials: CredentialsName | None = Field(
        default=None,
        description="The Prefect block with `token`, or with `username` and `password`; else the host's entry in "
        "`~/.netrc` counts.",
        examples=["stagegate-source/mlflow"],
    )
    run: str = Field(
        default="",
        max_length=200,
        description="The candidate's run. Where none is written, the newest that ended and has all metrics.",
        examples=["3f2a9c0d4b7e4f0c8a6d5e1b2c3d4e5f"],
    )
    compare: dict[Name, MetricBounds] = Field(
        default={},
        max_length=50,
        description="The bounds of each metric, by its name at the source.",
        examples=[{"val/auc": {"min": 0.8, "no_worse_than": {"ref": "production", "by": 0.005}}}],
    )
    samples: LeastSamples | None = Field(
        default=None,
        description="How many samples the figures must rest on; fewer are inconclusive.",
        examples=[{"name": "val/samples", "least": 1000}],
    )
    max_age: Age | None = Field(
        default=None,
        description="How long ago the candidate's run may have ended; an older one is inconclusive.",
        examples=["30d"],
    )
    keys: tuple[PublicKey, ...] = Field(
        default=(),
        max_length=20,
        description="The Ed25519 keys, as `stagegate key` prints them, of which one must have signed the file.",
        examples=[["ed25519:" + "0f" * 32]],
    )
    labels: dict[Name, Text] = Field(
        default={},
        max_length=20,
        description="Labels of Prometheus' series besides `digest`, so that one is left of each metric.",
        examples=[{"model": "delays"}],
    )

    @model_validator(mode="after")
    def _fits_the_source(self) -> Self:
        for name, sources in _ONLY_OF.items():
            if getattr(self, name) and self.source not in sources:
                raise ValueError(f"`{name}` needs `from: {' or '.join(sources)}`")
        return self

    @property
    def place(self) -> str:
        """The `url`, without a slash at its end; empty where none is written."""
        return (self.url or "").rstrip("/")

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that are asked for, with that of the samples."""
        return tuple(dict.fromkeys([*self.compare, *([self.samples.name] if self.samples else [])]))
