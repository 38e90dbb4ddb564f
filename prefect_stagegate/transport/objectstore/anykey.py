"""Listing an S3 bucket that holds keys which obstore refuses.

A single key with `..`, `//` or a control character makes obstore fail the whole page. botocore lists any key. It is
slower, so it is imported only after a listing met such a key. The callers decide which keys a dataset may hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prefect_stagegate.transport.objectstore.credentials import Provider
from prefect_stagegate.transport.objectstore.listed import ListedObject
from prefect_stagegate.transport.objectstore.s3_options import S3Settings

if TYPE_CHECKING:
    from botocore.client import BaseClient


@dataclass(frozen=True, slots=True)
class BotocoreLister:
    """Lists a bucket by botocore, whatever its keys are."""

    bucket: str
    settings: S3Settings
    provider: Provider | None
    """None: anonymous."""
    endpoint: str
    """With its scheme, without the bucket; empty means AWS."""
    virtual: bool
    """Whether the bucket is part of the host's name."""
    idle: float
    """Seconds without a byte after which a request is given up."""

    tells_versions: ClassVar[bool] = False

    def listing(self, prefix: str, after: str = "") -> Iterator[ListedObject]:
        """Every object below `prefix` whose key sorts after `after`, without the empty objects that mark folders.

        Raises:
            OSError: The bucket can't be listed.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        payer = {"RequestPayer": "requester"} if self.settings.requester_pays else {}
        try:
            pages = self._client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=prefix, StartAfter=after, **payer):
                for item in page.get("Contents", ()):
                    if item["Size"] or not item["Key"].endswith("/"):
                        etag, modified = item.get("ETag", "").strip('"'), item["LastModified"].timestamp()
                        yield ListedObject(item["Key"], item["Size"], etag, modified)
        except (BotoCoreError, ClientError) as error:
            raise OSError(str(error)) from error

    def _client(self) -> BaseClient:
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.session import Session

        config = Config(
            read_timeout=self.idle,
            signature_version=UNSIGNED if self.provider is None else None,
            s3={"addressing_style": "virtual" if self.virtual else "path"},
        )
        credential = self.provider() if self.provider else {}
        return Session().create_client(
            "s3",
            # botocore demands a region, also for servers that know none.
            region_name=self.settings.region or "us-east-1",
            endpoint_url=self.endpoint or None,
            verify=self.settings.ca_file or None,
            aws_access_key_id=credential.get("access_key_id"),
            aws_secret_access_key=credential.get("secret_access_key"),
            aws_session_token=credential.get("token"),
            config=config,
        )
