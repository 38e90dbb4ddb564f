"""The setting that says where Spark runs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prefect_stagegate.model.settings import setting

_SERVER = r"[A-Za-z0-9.\-\[\]:]+"
_SPARK = re.compile(
    rf"local(\[([0-9]{{1,4}}|\*)\])?|spark://{_SERVER}(,{_SERVER}){{0,9}}|sc://{_SERVER}(/;use_ssl=(true|false))?"
)


def _spark(text: str) -> str:
    if text and not _SPARK.fullmatch(text):
        raise ValueError(
            "is none of local, local[N], spark://HOST:PORT[,HOST:PORT], sc://HOST:PORT. "
            "A token for Spark Connect belongs into SPARK_CONNECT_AUTHENTICATE_TOKEN"
        )
    return text


@dataclass(frozen=True, slots=True)
class SparkSettings:
    """Where tables are judged. The process that judges them reads the variable itself."""

    spark: str = setting(
        "",
        "`local[N]`, `spark://HOST:PORT` or `sc://HOST:PORT`",
        "Where tables with `engine: spark` are judged; without it, in a Java process of this node's own.",
        _spark,
    )
    """Empty for this node; a cluster must see the cache under the same path."""
