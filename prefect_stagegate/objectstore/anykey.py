"""Listing an S3 bucket that holds keys which obstore refuses.

One key with `..`, `//` or a control character, and obstore lists nothing of its page. botocore takes keys as they come;
it is slower, and imported only when a listing met such a key. What may be done with them is for others to judge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from prefect_stagegate.objectstore.credentials import Provider
from prefect_stagegate.objectstore.listed import Listed
from prefect_stagegate.objectstore.options import S3Settings

if TYPE_CHECKING:
    from botocore.client import BaseClient


@dataclass(frozen=True, slots=True)
class AnyKey:
    """How a bucket is listed whatever its keys are."""

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

    def listing(self, prefix: str, after: str = "") -> Iterator[Listed]:
        """Every object below `prefix` whose key sorts after `after`. Empty objects that stand for folders are left out.

        Raises:
            OSError: The bucket can't be listed.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        payer = {"RequestPayer": "requester"} if self.settings.requester_pays else {}
        try:
            pages = self._client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=prefix, StartAfter=after, **payer):
                for found in page.get("Contents", ()):
                    if found["Size"] or not found["Key"].endswith("/"):
                        yield _listed(found)
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
        found = self.provider() if self.provider else {}
        return Session().create_client(
            "s3",
            region_name=self.settings.region or "us-east-1",
            endpoint_url=self.endpoint or None,
            verify=self.settings.ca_file or None,
            aws_access_key_id=found.get("access_key_id"),
            aws_secret_access_key=found.get("secret_access_key"),
            aws_session_token=found.get("token"),
            config=config,
        )


def _listed(found: dict[str, Any]) -> Listed:
    return Listed(found["Key"], found["Size"], found.get("ETag", "").strip('"'), found["LastModified"].timestamp())
