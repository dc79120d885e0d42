"""What can go wrong between us and the API server.

::

    ApiError                  every error of a request; ``str()`` names verb, resource and reason
    ├── UnreachableError      no answer: refused, reset, timed out, not resolved
    ├── UnauthorizedError     401: no token, or one that has expired
    ├── ForbiddenError        403: RBAC has no rule; the text names what is missing
    ├── NotFoundError         404: no such object, or no such kind
    ├── ConflictError         409: exists already, or was changed meanwhile
    ├── GoneError             410: the resourceVersion or the continue token has expired
    ├── InvalidError          400, 422: the object or the query is refused
    ├── TooManyRequestsError  429, and 503 with Retry-After: come back later
    └── ServerError           any other status of 500 and above

An expired watch arrives as an ERROR event instead of a status; it is the same GoneError.
"""

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """A request to the API server failed.

    Attributes:
        status: HTTP status; 0 when there was no answer.
        reason: The ``reason`` of the server's Status object, e.g. ``AlreadyExists``.
        retry_after: Seconds to wait that the server asked for, None when it did not.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class UnreachableError(ApiError):
    """There was no answer."""


class UnauthorizedError(ApiError):
    """The API server does not know who we are."""


class ForbiddenError(ApiError):
    """RBAC does not allow it."""


class NotFoundError(ApiError):
    """No such object, or the API server does not serve its kind."""


class ConflictError(ApiError):
    """The object exists already, or is not what we last read."""


class GoneError(ApiError):
    """Too old a resourceVersion or continue token: list again."""


class InvalidError(ApiError):
    """The API server refuses what was sent."""


class TooManyRequestsError(ApiError):
    """The API server wants to be asked later."""


class ServerError(ApiError):
    """The API server failed."""


_BY_STATUS: Mapping[int, type[ApiError]] = {
    400: InvalidError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    422: InvalidError,
    429: TooManyRequestsError,
}


def api_error(
    what: str,
    status: int,
    payload: Mapping[str, Any] | None = None,
    *,
    text: str = "",
    retry_after: float | None = None,
) -> ApiError:
    """Make the error of an answer.

    Args:
        what: Verb and resource, e.g. ``list pods in namespace default``.
        status: HTTP status, or the ``code`` of an ERROR event.
        payload: The server's Status object, if it sent one.
        text: What it said instead, fit to be shown.
        retry_after: Its Retry-After, in seconds.
    """
    status_object = payload or {}
    reason = str(status_object.get("reason") or "")
    bare = f"HTTP status {status}: {text}" if text else f"HTTP status {status}"
    message = str(status_object.get("message") or bare)
    details = status_object.get("details")
    if retry_after is None and isinstance(details, Mapping):
        asked = details.get("retryAfterSeconds")
        retry_after = float(asked) if isinstance(asked, int | float) and asked > 0 else None
    kind = _BY_STATUS.get(status)
    if kind is None:
        later = status == 503 and retry_after is not None
        kind = TooManyRequestsError if later else (ServerError if status >= 500 else ApiError)
    return kind(f"{what}: {message}", status=status, reason=reason, retry_after=retry_after)
