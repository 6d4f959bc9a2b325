"""Connections to object stores: a pyarrow file system a bucket or host, calls tried again, errors in plain words."""

import os
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from configs.errors import ConfigError, DataError
from configs.url import is_url

Result = TypeVar("Result")

RETRY_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Waits between our own tries."""
S3_WRITE_ATTEMPTS = 4
"""Tries of one request of a write, so that a part that fails does not send the whole object again.

A read is asked once and tried again by us alone: what a failed try has left in a buffer must not pass for its end.
"""
S3_REQUEST_TIMEOUT_S = 20.0
"""A request that no byte comes back for in so long is given up; the client's own 3 s are too few for a busy store."""
S3_CONNECT_TIMEOUT_S = 5.0
_REFUSED = (
    *("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "MISSING_AUTHENTICATION_TOKEN"),
    *("INVALID_CLIENT_TOKEN_ID", "UNRECOGNIZED_CLIENT", "REQUEST_EXPIRED", "ExpiredToken", "InvalidToken"),
    *("HTTP status 400", "HTTP status 401", "HTTP status 403", "credentials"),
)
"""What pyarrow's errors hold where asking again is of no use; a HEAD says "HTTP status 400" for an expired token."""


def connection_of(url: str, is_read: bool = True) -> tuple[pafs.FileSystem, str]:
    """The file system of an ``s3://``, ``gs://`` or ``hdfs://`` URL, made once, and the path of ``url`` in it.

    Credentials come from where the vendors' tools look. Raises ``ConfigError`` for another scheme and ``DataError``
    where no connection can be made.
    """
    parts = urlsplit(url)
    path = parts.path.strip("/") if parts.scheme == "hdfs" else f"{parts.netloc}/{parts.path.strip('/')}".rstrip("/")
    if parts.scheme not in ("s3", "gs", "hdfs"):
        raise ConfigError(f"{url}: {parts.scheme}:// is not read; use s3://, gs://, hdfs://, file:// or a path")
    if not parts.netloc and parts.scheme != "hdfs":
        raise ConfigError(f"{url} names no bucket; write {parts.scheme}://BUCKET/PATH")
    if parts.scheme == "s3":
        return _s3(parts.netloc, *_s3_settings(), 1 if is_read else S3_WRITE_ATTEMPTS), path
    return _other(parts.scheme, parts.netloc), f"/{path}" if parts.scheme == "hdfs" else path


def with_retries(url: str, call: Callable[[], Result]) -> Result:
    """``call``'s result; what fails in passing is tried again with growing waits.

    ``FileNotFoundError`` is passed on at once. Raises :class:`DataError` for what is refused, at once, and for what
    fails to the end.
    """
    start = time.monotonic()
    for delay_s in (*RETRY_DELAYS_S, None):
        try:
            return call()
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            _raise_if_final(url, error)
            if delay_s is None:
                raise _unanswered(url, error, time.monotonic() - start) from error
            time.sleep(delay_s)
    raise AssertionError("the last try returns or raises")


def _raise_if_final(url: str, error: Exception) -> None:
    text = _reason(error)
    if "NO_SUCH_KEY" in text:
        raise FileNotFoundError(f"{url} was removed while it was read") from error
    if "NO_SUCH_BUCKET" in text:
        raise DataError(f"{url}: there is no such bucket ({text}); fix the URL, or AWS_ENDPOINT_URL") from error
    if "HTTP status 301" in text or "PERMANENT_REDIRECT" in text:
        raise DataError(f"{url}: the bucket is in another region ({text}); set AWS_REGION to it") from error
    if isinstance(error, PermissionError) or any(word in text for word in _REFUSED):
        raise DataError(
            f"{url}: the credentials are missing, expired or not allowed to do this ({text}); renew them "
            f"(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or AWS_PROFILE, for s3://) and start "
            f"the same command again"
        ) from error


def _unanswered(url: str, error: Exception, seconds: float) -> DataError:
    return DataError(
        f"{url}: {len(RETRY_DELAYS_S) + 1} tries in {seconds:.0f} s failed, the last with: {_reason(error)}; check "
        f"the network and the endpoint (AWS_ENDPOINT_URL, AWS_REGION for s3://) and start the same command again"
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _s3_settings() -> tuple[str, str]:
    """Endpoint and region, by the environment's variables that other AWS clients read too; empty: not set."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
    return endpoint, region


@lru_cache
def _s3(bucket: str, endpoint: str, region: str, attempts: int) -> pafs.FileSystem:
    parts = urlsplit(endpoint if is_url(endpoint) or not endpoint else f"https://{endpoint}")
    if not region:
        region = "us-east-1" if endpoint else with_retries(f"s3://{bucket}", lambda: pafs.resolve_s3_region(bucket))
    return pafs.S3FileSystem(
        region=region,
        scheme=parts.scheme or "https",
        endpoint_override=f"{parts.netloc}{parts.path}".rstrip("/") or None,
        request_timeout=S3_REQUEST_TIMEOUT_S,
        connect_timeout=S3_CONNECT_TIMEOUT_S,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=attempts),
    )


@lru_cache
def _other(scheme: str, authority: str) -> pafs.FileSystem:
    try:
        return pafs.FileSystem.from_uri(f"{scheme}://{authority}/")[0]
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{scheme}://{authority}/ cannot be reached: {_reason(error)}; see docs/object_stores.md"
        ) from (error)
