"""The spec as frozen models: the name, meaning and values of each key.

The JSON Schema takes its descriptions and examples from here. Only `load_spec` should make a `Spec`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Discriminator, Field, PrivateAttr, Tag, create_model, model_serializer

from prefect_stagegate.doors import declared, load
from prefect_stagegate.errors import UsageError, did_you_mean
from prefect_stagegate.model import Severity
from prefect_stagegate.model.canonical import digest_of
from prefect_stagegate.spec.csv_dialect import CsvSpec, TextReading
from prefect_stagegate.spec.documentation import PublicationSpec, RaiSpec
from prefect_stagegate.spec.fields import (
    NAME_TAG,
    SETTINGS_TAG,
    ByteSize,
    Context,
    DatasetName,
    Glob,
    Link,
    PublicKey,
    RuleSpec,
    SpecModel,
    TargetName,
    Text,
)
from prefect_stagegate.spec.source_specs import MostTaken, Share, SourceSpec
from prefect_stagegate.units import count_text

M = TypeVar("M", bound=SpecModel)
VERSION = 1
"""The version of the spec's format that this release reads."""
Owner = Literal["data", "ai", "infra", "governance"]
Engine = Literal["duckdb", "pandas", "spark"]
"""The engines that evaluate a suite; the package `validations` implements them."""
Probe = Literal[
    "nonempty",
    "parquet",
    "csv",
    "parquet-pages",
    "image",
    "audio",
    "tar",
    "safetensors",
    "numpy",
    "jsonl",
    "text",
    "unique",
]
"""The probes of a file; the package `validations` implements them."""
ImageMode = Literal["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "I;16"]
"""Pillow's names of how an image's pixels are stored."""
Pixels = Annotated[int, Field(ge=1, le=10**6, strict=True)]
ImageSize = Annotated[tuple[Pixels, Pixels], Field(json_schema_extra={"description": "Width and height in pixels."})]
OnWithdrawal = Literal["hold", "fall_back"]
"""What a run does when the accepted version no longer holds."""
HOLD: OnWithdrawal = "hold"


class TableSpec(SpecModel):
    """What one table promises, and which files it is made of."""

    files: Glob = Field(description="Glob of the dataset's paths that are the table.", examples=["flights/*.parquet"])
    suite: dict[str, Any] | None = Field(
        default=None,
        description="Great Expectations suite of the table: a YAML file relative to the spec, the suite itself, "
        "or a list of these.",
        examples=["suites/flights.yaml", ["suites/common.yaml", "suites/flights.yaml"]],
    )
    engine: Engine = Field(default="duckdb", description="What evaluates the suite.", examples=["duckdb"])
    csv: CsvSpec = Field(
        default=CsvSpec(),
        description="How the table's CSV files are written, all of them alike. Every engine and check reads them so.",
        examples=[{"dates": "%d/%m/%Y", "separator": ";", "decimal": ","}],
    )
    columns: dict[Text, Text] = Field(
        default={},
        description="The columns that the table promises, with their types.",
        examples=[{"year": "int", "dep_delay": "int"}],
    )
    time: Text | None = Field(
        default=None,
        description="The column that says when a record arose; the check `freshness` reads it.",
        examples=["time_hour"],
    )
    pii: tuple[Text, ...] = Field(
        default=(),
        description="The columns that hold personal data: results and reports mask their values.",
        examples=[["email", "phone"]],
    )

    @property
    def reading(self) -> TextReading:
        """How its text files are read."""
        return TextReading(self.csv, tuple(sorted(self.columns.items())))


class ImageSpec(SpecModel):
    """What images promise, beside that they decode."""

    mode: ImageMode | None = Field(
        default=None, description="How pixels are stored, by Pillow's name.", examples=["RGB"]
    )
    min_size: ImageSize | None = Field(
        default=None, description="The least width and height, in pixels.", examples=[[64, 64]]
    )
    max_size: ImageSize | None = Field(
        default=None, description="The greatest width and height, in pixels.", examples=[[4096, 4096]]
    )


class ProbeSpec(SpecModel):
    """A probe that was written with settings."""

    image: ImageSpec = Field(description="What the images promise.", examples=[{"mode": "RGB", "min_size": [64, 64]}])

    def __str__(self) -> str:
        ((name, settings),) = self.model_dump(mode="json", exclude_none=True).items()
        return f"{name} ({', '.join(f'{key} {value}' for key, value in settings.items())})"


def _form(value: object) -> str:
    return NAME_TAG if isinstance(value, str) else SETTINGS_TAG


class FilesSpec(SpecModel):
    """What the files of one glob promise, each by itself."""

    match: Glob = Field(description="Glob of the dataset's paths that are probed.", examples=["images/**/*.jpg"])
    probes: tuple[
        Annotated[Annotated[ProbeSpec, Tag(SETTINGS_TAG)] | Annotated[Probe, Tag(NAME_TAG)], Discriminator(_form)],
        ...,
    ] = Field(
        min_length=1,
        description="The probes that each of the files must pass: names, or a name with settings.",
        examples=[["unique", {"image": {"mode": "RGB", "min_size": [64, 64]}}]],
    )
    sample: Share | None = Field(
        default=None,
        description="A share of the files, chosen by the hash of their paths, and at least one: only these are opened.",
        examples=["10%", 0.1],
    )
    limit: MostTaken | None = Field(
        default=None,
        description="At most so many files are opened: those whose paths have the smallest hashes.",
        examples=[1000],
    )

    @property
    def drawn(self) -> str:
        """Which part of the files is opened, as the end of a sentence; empty when all are."""
        share = f", a sample of {self.sample}" if self.sample is not None else ""
        return f"{share}, at most {count_text(self.limit, 'file')}" if self.limit is not None else share


class ContractSpec(SpecModel):
    """What the dataset promises."""

    odcs: Text | None = Field(
        default=None,
        description="A data contract of the Open Data Contract Standard: a YAML file relative to the spec. What "
        "the spec writes itself wins.",
        examples=["contract.yaml"],
    )
    partial: bool = Field(
        default=False,
        strict=True,
        description="Leave out what the data contract promises and no check can test; else such a contract is refused.",
        examples=[True],
    )
    tables: dict[Text, TableSpec] = Field(
        default={},
        description="The dataset's tables by name, with their suites.",
        examples=[{"flights": {"files": "flights/*.parquet", "suite": "suites/flights.yaml"}}],
    )
    files: tuple[FilesSpec, ...] = Field(
        default=(),
        description="Probes of single files, run before any table is queried.",
        examples=[[{"match": "flights/*.parquet", "probes": ["parquet"]}]],
    )


class JobSpec(SpecModel):
    """What training asks of one node: the checks `feed_rate` and `utilisation` compare with it."""

    batch_size: int = Field(
        ge=1, le=10**9, strict=True, description="Samples that one accelerator takes in a step.", examples=[400]
    )
    sample_size: ByteSize = Field(
        ge=1, description="Bytes of one sample in the dataset's files, on average.", examples=["114kB", "140MiB"]
    )
    step_time: float = Field(
        gt=0,
        le=3600,
        strict=True,
        allow_inf_nan=False,
        description="Seconds that an accelerator computes on a batch when it never waits for data.",
        examples=[0.224],
    )
    accelerators: int = Field(
        default=1, ge=1, le=32, strict=True, description="Accelerators of the node that read at once.", examples=[8]
    )
    readers: int = Field(
        default=4,
        ge=1,
        le=32,
        strict=True,
        description="Readers, as a loader's workers, of each accelerator.",
        examples=[8],
    )
    prefetch: int = Field(
        default=4,
        ge=1,
        le=1000,
        strict=True,
        description="Batches that are read ahead for each accelerator.",
        examples=[8],
    )

    @property
    def batch_bytes(self) -> int:
        """Bytes of one batch of one accelerator."""
        return self.batch_size * self.sample_size

    @property
    def needs(self) -> float:
        """Bytes a second that keep all accelerators of the node busy."""
        return self.batch_bytes / self.step_time * self.accelerators


class RequirementSpec(SpecModel):
    """A check that a gate names, with the settings that were written there."""

    check: str
    severity: Severity | None = None
    """None where nothing was written: then the gate below decides, and in the end the check itself."""
    consecutive: int | None = None
    """How often in a row it has to pass; None where nothing was written: then the gate below decides, in the end 1."""
    params: dict[str, Any] = Field(default={})

    @model_serializer
    def written(self) -> str | dict[str, Any]:
        """The item of `require` that says the same."""
        settings = {
            **self.params,
            **({"severity": self.severity.value} if self.severity else {}),
            **({"consecutive": self.consecutive} if self.consecutive else {}),
        }
        return {self.check: settings} if settings else self.check


SPEC_KEYS: set[str] = set()
GATE_KEYS: set[str] = set()
"""The keys that plugins add to a spec, and to a gate. Both are part of the policy."""


def _with_keys_of_plugins(place: str, names: set[str]) -> Callable[[type[M]], type[M]]:
    """Add plugins' keys at a place of the spec to its model, and their names to `names`."""

    def extended(model: type[M]) -> type[M]:
        keys = {key.rpartition("."): where for key, where in declared("spec_keys").items()}
        added = {name: load(where) for (above, _, name), where in keys.items() if above == place}
        names.update(added)
        if not added:
            return model
        return create_model(model.__name__, __base__=model, __module__=model.__module__, __doc__=model.__doc__, **added)

    return extended


@_with_keys_of_plugins("gates", GATE_KEYS)
class GateSpec(SpecModel):
    """The policy of one target, as it was written."""

    extends: str | None = Field(
        default=None,
        description="The gate below: its requirements come first, and later settings of a check win.",
        examples=["pilot"],
    )
    require: tuple[RequirementSpec, ...] = Field(
        default=(),
        description="The checks that a version must pass: names, or a name with parameters and a severity.",
        examples=[["schema", {"freshness": {"warn": "12h", "fail": "24h", "severity": "blocking"}}]],
    )
    on_withdrawal: OnWithdrawal | None = Field(
        default=None,
        description="What `require_ready` does when the accepted version no longer holds: hold refuses the run, "
        "fall_back takes the last accepted version before it that still holds. By default the gate "
        "below decides, and in the end it is hold.",
        examples=["fall_back"],
    )


@_with_keys_of_plugins("policy", set())
class PolicySpec(SpecModel):
    """What holds for the policy itself: the gates, the contract, the owners and the job of a dataset."""

    change: RuleSpec | None = Field(
        default=None,
        description="Who must agree before another policy is adopted, this rule included. "
        "Without it, anybody may adopt one.",
        examples=[{"approval": {"count": 1, "from": ["governance"]}}],
    )
    overrides: RuleSpec | None = Field(
        default=None,
        description="Who may waive, revoke and roll back; one person is enough. By default those whose answers "
        "the gate's `approval` counts, with the same proof.",
        examples=[{"approval": {"from": ["infra"]}}],
    )
    waivers: Literal["none"] | None = Field(
        default=None, description="`none` if nobody may waive a failure.", examples=["none"]
    )
    node_keys: tuple[PublicKey, ...] = Field(
        default=(),
        max_length=1000,
        description="The Ed25519 keys of the nodes that check, as `stagegate key` prints them: only evidence, "
        "decisions and (where people need not sign) rollbacks that one of them signed count.",
        examples=[["ed25519:" + "0f" * 32]],
    )


@dataclass(frozen=True, slots=True)
class Requirement:
    """A check that a gate requires, merged with the gates below and with its defaults filled in."""

    check: str
    severity: Severity
    params: Mapping[str, Any]
    """As JSON values, from which the check's parameter model can be made again."""
    consecutive: int = 1
    """How often in a row the check has to pass; more than once for what is noisy."""

    @property
    def policy(self) -> list[Any]:
        """The part of it that the policy's digest covers, as JSON values."""
        # Left out when it is 1, so that policies from before `consecutive` existed keep their digests.
        return [self.severity.value, self.params, *([self.consecutive] if self.consecutive > 1 else [])]


@dataclass(frozen=True, slots=True)
class Gate:
    """A target's policy, merged with the gates below."""

    target: str
    extends: str | None
    requirements: tuple[Requirement, ...]
    policy: str
    """`sha256:<hex>` over target, gate below, requirements, contract and `on_withdrawal`; not over who owns them."""
    on_withdrawal: OnWithdrawal = HOLD
    added: Mapping[str, Any] = field(default_factory=dict)
    """What plugins' keys hold, as JSON values."""


def _this_version(value: int) -> int:
    if value != VERSION:
        raise ValueError(f"this release reads version {VERSION} of the format, not {value}")
    return value


@_with_keys_of_plugins("", SPEC_KEYS)
class Spec(SpecModel):
    """A dataset: where it comes from, what it promises, and what its targets require."""

    stagegate: Annotated[int, AfterValidator(_this_version)] = Field(
        strict=True, description="Version of the spec's format.", examples=[1], json_schema_extra={"const": VERSION}
    )
    dataset: DatasetName = Field(
        description="The dataset's name: lowercase letters and digits, with single dashes between.",
        examples=["nycflights"],
    )
    owners: dict[Owner, Text] = Field(
        default={},
        description="Whom each kind of finding goes to.",
        examples=[{"data": "data-eng@example.org", "infra": "platform@example.org"}],
    )
    license: Text | None = Field(
        default=None, description="The data's licence, as an SPDX identifier where it has one.", examples=["CC0-1.0"]
    )
    runbook: Link | None = Field(
        default=None,
        description="Where people read what to do when something is wrong.",
        examples=["https://wiki.example.org/nycflights"],
    )
    publication: PublicationSpec = Field(
        default=PublicationSpec(),
        description="What `stagegate show --croissant` says of the dataset; the check `croissant` asks for it.",
        examples=[{"description": "On-time data of flights from New York in 2013."}],
    )
    rai: RaiSpec = Field(
        default=RaiSpec(),
        description="Limits, biases and origin of the data, by the names of Croissant's vocabulary of responsible AI.",
        examples=[{"data_limitations": ["One year only."], "personal_sensitive_information": ["None."]}],
    )
    sources: tuple[SourceSpec, ...] = Field(
        min_length=1,
        description="Where the dataset's entries come from; no two may give the same path.",
        examples=[[{"url": "s3://lake/flights/", "into": "flights/"}]],
    )
    contract: ContractSpec = Field(
        default=ContractSpec(),
        description="What the dataset promises; the checks `schema`, `nonempty`, `expectations`, `coverage` test it.",
        examples=[{"files": [{"match": "flights/*.parquet", "probes": ["parquet"]}]}],
    )
    job: JobSpec | None = Field(
        default=None,
        description="What trains on the dataset, for the checks on how fast its node feeds it.",
        examples=[{"batch_size": 400, "sample_size": "114kB", "step_time": 0.224, "accelerators": 8}],
    )
    max_failed_objects: int = Field(
        default=0,
        ge=0,
        strict=True,
        description="How many objects may fail to stage before staging gives up.",
        examples=[0],
    )
    gates: dict[TargetName, GateSpec] = Field(
        default={},
        description="The gate of each target, by the target's name.",
        examples=[{"pilot": {"require": ["schema", "nonempty"]}}],
    )

    policy: PolicySpec = Field(
        default=PolicySpec(),
        description="Who must agree to a change of the policy.",
        examples=[{"change": {"approval": {"count": 1, "from": ["governance"]}}}],
    )

    _requirements: Mapping[str, tuple[Requirement, ...]] = PrivateAttr(default={})
    _left_out: tuple[str, ...] = PrivateAttr(default=())

    def model_post_init(self, context: Any, /) -> None:
        """Keep what each target requires, which `load_spec` settled before validation."""
        if isinstance(context, Context):
            self._requirements = context.requirements
            self._left_out = context.left_out

    @property
    def left_out(self) -> tuple[str, ...]:
        """What its data contract promises and `partial: true` left out; file, line, key and reason of each."""
        return self._left_out

    def gate(self, target: str) -> Gate:
        """The settled policy of one target.

        Raises:
            UsageError: The spec has no such target.
        """
        if target not in self.gates:
            hint = did_you_mean(target, self.gates)
            raise UsageError(f"There is no gate for {target!r}", hint=hint[0].upper() + hint[1:], dataset=self.dataset)
        extends, requirements = self.gates[target].extends, self._requirements[target]
        on_withdrawal = self._on_withdrawal(target)
        added = self.gates[target].model_dump(mode="json", include=GATE_KEYS, exclude_defaults=True)
        policy = {
            "target": target,
            "extends": extends,
            # A mapping, since the order of checks decides nothing.
            "requirements": {requirement.check: requirement.policy for requirement in requirements},
            # Without defaults, so that a key that a later release adds changes no digest until somebody writes it.
            "contract": self.contract.model_dump(mode="json", exclude_defaults=True),
            # Left out by default, so that policies from before the key existed keep their digests.
            **({} if on_withdrawal == HOLD else {"on_withdrawal": on_withdrawal}),
            **added,
        }
        return Gate(target, extends, requirements, digest_of(policy), on_withdrawal, added)

    def _on_withdrawal(self, target: str) -> OnWithdrawal:
        """The setting of the gate, or of the nearest gate below that has one."""
        gate = self.gates[target]
        # The loop ends: `load_spec` refuses gates that extend each other in a circle.
        while gate.on_withdrawal is None and gate.extends is not None:
            gate = self.gates[gate.extends]
        return gate.on_withdrawal or HOLD

    def canonical(self) -> dict[str, Any]:
        """The spec as JSON values, with suites inlined, absolute paths and no defaults. It loads as an equal spec."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @property
    def digest(self) -> str:
        """`sha256:<hex>` over the canonical spec."""
        return digest_of(self.canonical())
