"""Google Cloud Storage: `gs://bucket/folder/`.

The pin is the generation, and the MD5 is checked. With credentials that only obstore can use, and without the extra
`gcs`, listings hold no generations: then the pin is the etag.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect_stagegate.objectstore import parse_bucket_url
from prefect_stagegate.objectstore.gcs import gcs_settings, open_gcs
from prefect_stagegate.sources.buckets.bucket import BucketSource
from prefect_stagegate.sources.terms import Terms


class GcsSource(BucketSource):
    """A bucket, a folder or an object on Google Cloud Storage.

    Args:
        url: `gs://bucket/folder/`.
        options: By gcsfs's names.
        terms: Its idle time and permitted hosts apply.
    """

    def __init__(self, url: str, options: Mapping[str, Any], terms: Terms) -> None:
        place = parse_bucket_url(url)
        store = open_gcs(place, gcs_settings(options), idle=terms.idle, allowed=terms.allowed)
        super().__init__(url, store, place.key)
