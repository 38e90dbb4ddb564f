"""What a dataset's publication says of it: the keys `publication` and `rai` of a spec, after Croissant's vocabularies.

The keys under `rai` are those of Croissant RAI 1.0 in snake case, with two of PROV and one that hubs ask for besides.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from prefect_stagegate.spec.fields import Link, SpecModel, Text


def _prose(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value.strip()


Prose = Annotated[str, AfterValidator(_prose), Field(json_schema_extra={"minLength": 1})]
"""Text that is not empty, of any number of lines."""


class CreatorSpec(SpecModel):
    """One of those who made the dataset."""

    name: Text = Field(description="The name, as it is cited.", examples=["Ada Lovelace"])
    kind: Literal["person", "organization"] = Field(
        default="organization", description="Whether it is a person or an organization.", examples=["person"]
    )
    url: Link | None = Field(default=None, description="Their page.", examples=["https://example.org"])


class PublicationSpec(SpecModel):
    """What the dataset's Croissant description says of it. It is public: no personal or internal value belongs here."""

    description: Prose | None = Field(
        default=None, description="What the dataset is.", examples=["On-time data of flights from New York in 2013."]
    )
    url: Link | None = Field(
        default=None, description="The dataset's page.", examples=["https://example.org/nycflights"]
    )
    creators: tuple[CreatorSpec, ...] = Field(
        default=(), description="Who made the dataset.", examples=[[{"name": "Example Institute"}]]
    )
    published: date | None = Field(
        default=None, description="The day on which it was published.", examples=["2026-01-31"]
    )
    version: Annotated[str, Field(pattern=r"^\d{1,6}\.\d{1,6}\.\d{1,6}$")] | None = Field(
        default=None,
        description="Its published version, as MAJOR.MINOR.PATCH; the digest is added.",
        examples=["1.2.0"],
    )
    citation: Prose | None = Field(
        default=None,
        description="How it is cited, best as BibTeX.",
        examples=["@misc{nycflights, title={nycflights}, year={2026}}"],
    )
    keywords: tuple[Text, ...] = Field(default=(), description="Words to find it by.", examples=[["flights"]])


class RaiSpec(SpecModel):
    """What trainers must know of the dataset, in Croissant's vocabulary of responsible AI."""

    data_collection: Prose | None = Field(
        default=None, description="How the data was collected.", examples=["Reported by the airlines each month."]
    )
    data_collection_type: tuple[Text, ...] = Field(
        default=(), description="The kinds of collection.", examples=[["Secondary Data analysis"]]
    )
    data_collection_missing_data: Prose | None = Field(
        default=None, description="What is missing, and why.", examples=["Cancelled flights have no delay."]
    )
    data_collection_raw_data: Prose | None = Field(
        default=None, description="The raw data it was made of.", examples=["On-Time Performance, as CSV."]
    )
    data_collection_timeframe: tuple[date, ...] = Field(
        default=(),
        max_length=2,
        description="First and last day of the collection.",
        examples=[["2013-01-01", "2013-12-31"]],
    )
    data_imputation_protocol: Prose | None = Field(
        default=None, description="How missing values were filled in.", examples=["None were."]
    )
    data_preprocessing_protocol: tuple[Prose, ...] = Field(
        default=(), description="What was done before a model can read it.", examples=[["Split by month."]]
    )
    data_manipulation_protocol: Prose | None = Field(
        default=None, description="How values were changed.", examples=["Times are in UTC."]
    )
    data_annotation_protocol: Prose | None = Field(
        default=None, description="How labels were made.", examples=["No labels were added."]
    )
    data_annotation_platform: tuple[Text, ...] = Field(
        default=(), description="With which tools people labelled.", examples=[["Label Studio"]]
    )
    data_annotation_analysis: tuple[Prose, ...] = Field(
        default=(), description="How labels that differ became one.", examples=[["By majority of three."]]
    )
    annotations_per_item: Text | None = Field(default=None, description="Labels of each item.", examples=["3"])
    annotator_demographics: tuple[Prose, ...] = Field(
        default=(), description="Who labelled, as groups.", examples=[["Adults who read English."]]
    )
    machine_annotation_tools: tuple[Text, ...] = Field(
        default=(), description="Software that labelled.", examples=[["spaCy 3.8"]]
    )
    data_biases: tuple[Prose, ...] = Field(
        default=(), description="Known biases.", examples=[["Only flights from three airports."]]
    )
    data_use_cases: tuple[Prose, ...] = Field(
        default=(), description="What it is for.", examples=[["Training of delay forecasts."]]
    )
    data_limitations: tuple[Prose, ...] = Field(
        default=(), description="What it must not be used for, and why.", examples=[["One year only."]]
    )
    data_social_impact: Prose | None = Field(
        default=None, description="What its use does to people.", examples=["None is known."]
    )
    personal_sensitive_information: tuple[Prose, ...] = Field(
        default=(), description="Personal or sensitive data in it; say so when there is none.", examples=[["None."]]
    )
    data_release_maintenance_plan: Prose | None = Field(
        default=None, description="Who maintains it, and for how long.", examples=["Updated each month until 2030."]
    )
    has_synthetic_data: bool | None = Field(
        default=None, strict=True, description="Whether any of it is synthetic.", examples=[False]
    )
    was_derived_from: tuple[Link, ...] = Field(
        default=(), description="The data it was made from: pages or names.", examples=[["https://example.org/raw"]]
    )
    was_generated_by: tuple[Prose, ...] = Field(
        default=(), description="The steps that made it.", examples=[["Monthly files were cleaned and joined."]]
    )
