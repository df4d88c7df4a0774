"""Which errors of the clients of object stores pass by themselves."""

from __future__ import annotations

import aiohttp
import pytest
from botocore import exceptions, parsers
from tokenloom.pipeline.storage.answers import http_status, is_passing, way_out


class OfAzure(Exception):  # noqa: N818 - as its client has the status
    status_code = 429


def answer(status: int, code: str = "") -> exceptions.ClientError:
    return exceptions.ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject"
    )


def of_http(status: int) -> aiohttp.ClientResponseError:
    return aiohttp.ClientResponseError(None, (), status=status)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error",
    [
        answer(503, "SlowDown"),
        answer(400, "RequestTimeout"),
        answer(400, "IncompleteBody"),
        answer(400, "BadDigest"),  # what was sent got damaged on its way
        answer(400, "XAmzContentSHA256Mismatch"),
        answer(409, "ConditionalRequestConflict"),
        of_http(503),
        OfAzure(),
        aiohttp.ClientPayloadError(),
        exceptions.EndpointConnectionError(endpoint_url="http://host", error="refused"),
        exceptions.ReadTimeoutError(endpoint_url="http://host", error="late"),
        parsers.ResponseParserError("no element found"),
        ConnectionResetError(),
        TimeoutError(),
    ],
    ids=repr,
)
def test_these_pass(error):
    assert is_passing(error)


@pytest.mark.parametrize(
    "error",
    [
        answer(400, "InvalidRequest"),
        answer(403, "AccessDenied"),
        answer(501, "NotImplemented"),
        of_http(403),
        FileNotFoundError(),
        PermissionError(),
        exceptions.NoCredentialsError(),
        exceptions.ProfileNotFound(profile="none"),
        exceptions.ParamValidationError(report="Invalid bucket name"),
        exceptions.SSLError(endpoint_url="https://host", error="certificate verify failed"),
        ValueError(),
    ],
    ids=repr,
)
def test_these_do_not(error):
    assert not is_passing(error)


def test_the_status_is_found_as_each_client_has_it():
    assert [http_status(error) for error in (answer(503), of_http(404), OfAzure(), OSError())] == [503, 404, 429, None]


def test_silence_has_a_way_out():
    late = exceptions.ReadTimeoutError(endpoint_url="http://host", error="late")
    assert way_out(late, is_s3=True).startswith("Requests are taken there, and not answered")
