"""Which error an answer of the API server is, and when it may be asked again."""

import pytest

from epp.kube.errors import (
    ApiError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
    ServerError,
    TooManyRequestsError,
    UnauthorizedError,
    api_error,
)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidError),
        (401, UnauthorizedError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (409, ConflictError),
        (410, GoneError),
        (422, InvalidError),
        (429, TooManyRequestsError),
        (500, ServerError),
        (503, ServerError),
        (504, ServerError),
        (418, ApiError),
        (302, ApiError),
    ],
)
def test_the_status_names_the_error(status: int, kind: type[ApiError]) -> None:
    made = api_error("get pods", status)

    assert type(made) is kind
    assert (made.status, made.reason, made.retry_after) == (status, "", None)
    assert str(made) == f"get pods: HTTP status {status}"


def test_what_the_server_says_is_told() -> None:
    payload = {"reason": "AlreadyExists", "message": 'pods "a" already exists'}

    made = api_error("create pods", 409, payload)

    assert (str(made), made.reason) == ('create pods: pods "a" already exists', "AlreadyExists")


@pytest.mark.parametrize(
    ("header", "details", "want"),
    [
        pytest.param(None, {"retryAfterSeconds": 7}, 7.0, id="of-the-status-object"),
        pytest.param(3.0, {"retryAfterSeconds": 7}, 3.0, id="the-header-wins"),
        pytest.param(3.0, None, 3.0, id="of-the-header"),
        pytest.param(0.0, {"retryAfterSeconds": 7}, 0.0, id="the-header-says-now"),
        pytest.param(None, {"retryAfterSeconds": 0}, None, id="none-asked"),
        pytest.param(None, {"retryAfterSeconds": -1}, None, id="negative"),
        pytest.param(None, {"retryAfterSeconds": "7"}, None, id="text"),
        pytest.param(None, {}, None, id="no-such-field"),
        pytest.param(None, "soon", None, id="details-of-another-type"),
    ],
)
def test_when_to_come_back(header: float | None, details: object, want: float | None) -> None:
    made = api_error("list pods", 429, {"details": details}, retry_after=header)

    assert made.retry_after == want


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        pytest.param(1.0, None, id="header"),
        pytest.param(None, {"details": {"retryAfterSeconds": 1}}, id="status-object"),
    ],
)
def test_an_unavailable_server_that_names_a_time_wants_to_be_asked_later(
    header: float | None, payload: dict[str, object] | None
) -> None:
    made = api_error("list pods", 503, payload, retry_after=header)

    assert type(made) is TooManyRequestsError
    assert (made.status, made.retry_after) == (503, 1.0)


def test_only_an_unavailable_server_is_asked_later_for_its_time() -> None:
    assert type(api_error("list pods", 500, retry_after=1.0)) is ServerError
