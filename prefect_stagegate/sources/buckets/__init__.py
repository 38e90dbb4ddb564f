"""Object stores: S3, and what all of them share."""

from prefect_stagegate.doors import Source, options
from prefect_stagegate.sources.fsspec import IGNORED

S3 = Source(
    "an S3 source",
    options(
        value="profile anon region client_kwargs.region_name addressing_style config_kwargs.s3.addressing_style "
        "use_ssl client_kwargs.use_ssl requester_pays etag_is_md5 "
        "config_kwargs.max_pool_connections config_kwargs.connect_timeout config_kwargs.read_timeout "
        "config_kwargs.retries.max_attempts config_kwargs.retries.mode config_kwargs.region_name "
        "config_kwargs.signature_version config_kwargs.tcp_keepalive config_kwargs.s3.use_accelerate_endpoint "
        "config_kwargs.s3.payload_signing_enabled config_kwargs.request_checksum_calculation "
        "config_kwargs.response_checksum_validation s3_additional_kwargs.RequestPayer "
        "s3_additional_kwargs.ExpectedBucketOwner s3_additional_kwargs.SSECustomerAlgorithm",
        address="endpoint_url client_kwargs.endpoint_url",
        file="verify client_kwargs.verify",
        credential="key secret token username password client_kwargs.aws_access_key_id "
        "client_kwargs.aws_secret_access_key client_kwargs.aws_session_token s3_additional_kwargs.SSECustomerKey",
        block="config_kwargs.*",
        ignored=f"{IGNORED} cache_regions fixed_upload_size version_aware",
    ),
    schemes=("s3", "s3a"),
    opener="prefect_stagegate.sources.buckets.s3_source:open_s3_source",
    is_stateless=True,
)
SOURCES = (S3,)
