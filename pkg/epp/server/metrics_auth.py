"""Who may read the metrics port: the cluster decides, as for the metrics of every controller.

A bearer token becomes a user by a TokenReview, and a SubjectAccessReview tells whether that user
may ``get`` the path. Answers are kept for a minute, refusals shorter, so that a scraper costs the
API server a review a minute and a new permission works soon. Nothing is ever open because
something failed: without an answer there is no page.

Answers are kept by a hash of the token; tokens are neither kept nor logged.
Reference: controller-runtime pkg/metrics/filters/filters.go.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec

from epp.kube.api import KubeRequests
from epp.kube.errors import ApiError
from epp.kube.resource import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS, Resource
from epp.logs import get_logger
from epp.server.http_connection import HttpRequest, HttpResponse, plain
from epp.server.shared_answers import SharedAnswers

log = get_logger(__name__)

ALLOWED_SECONDS = 60.0
REFUSED_SECONDS = 10.0
"""How long answers are believed: the reference's minute, and less for what may be repaired."""

MAX_ALLOWED = 256
MAX_REFUSED = 1024
"""Answers kept."""

MAX_REVIEWS = 8
"""Reviews under way at once; more wait."""

REVIEW_SECONDS = 5.0
"""Deadline of one review."""

CHALLENGE = 'Bearer realm="epp"'
_BEARER = re.compile(r"bearer +([A-Za-z0-9\-._~+/]+=*) *", re.ASCII | re.IGNORECASE)


class User(msgspec.Struct, frozen=True, kw_only=True):
    """``status.user`` of a TokenReview; the other review takes it nearly as it is."""

    username: str = ""
    uid: str = ""
    groups: list[str] = msgspec.field(default_factory=list)
    extra: dict[str, list[str]] = msgspec.field(default_factory=dict)

    def may_get(self, path: str) -> dict[str, Any]:
        """The ``spec`` of a SubjectAccessReview."""
        return {
            "user": self.username,
            "uid": self.uid,
            "groups": self.groups,
            "extra": self.extra,
            "nonResourceAttributes": {"path": path, "verb": "get"},
        }


class _TokenStatus(msgspec.Struct, frozen=True, kw_only=True):
    authenticated: bool = False
    user: User = User()


class _TokenReview(msgspec.Struct, frozen=True, kw_only=True):
    status: _TokenStatus


class _AccessStatus(msgspec.Struct, frozen=True, kw_only=True):
    allowed: bool
    denied: bool = False


class _AccessReview(msgspec.Struct, frozen=True, kw_only=True):
    status: _AccessStatus


Review = TypeVar("Review", _TokenReview, _AccessReview)


class MetricsAuth:
    """The guard of the metrics server.

    Args:
        client: Asks the API server; must be allowed to create both kinds of review.
        clock: Monotonic seconds, for the age of answers.
    """

    def __init__(
        self, client: KubeRequests, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        limits: dict[str, Any] = {
            "clock": clock,
            "good_seconds": ALLOWED_SECONDS,
            "bad_seconds": REFUSED_SECONDS,
            "max_good": MAX_ALLOWED,
            "max_bad": MAX_REFUSED,
        }
        self._users: SharedAnswers[bytes, User | None] = SharedAnswers("token review", **limits)
        self._access: SharedAnswers[tuple[bytes, str], bool] = SharedAnswers(
            "access review", **limits
        )
        self._room = asyncio.Semaphore(MAX_REVIEWS)
        self._failing = False

    async def check(self, request: HttpRequest) -> HttpResponse | None:
        """Return the refusal of a request, None when it may be served."""
        token = _BEARER.fullmatch(request.headers.get("authorization", ""))
        if token is None:
            return _unauthorized("a bearer token is needed", CHALLENGE)
        try:
            return await self._ask(token[1], request.path)
        except (ApiError, msgspec.DecodeError) as exc:
            if not self._failing:
                self._failing = True
                log.warning("metrics readers cannot be checked, nobody gets a page", error=exc)
            text = "the Kubernetes API cannot be asked whether you may read this, try again later"
            return plain(HTTPStatus.SERVICE_UNAVAILABLE, text)

    async def stop(self) -> None:
        """End the reviews under way. Idempotent."""
        await self._users.stop()
        await self._access.stop()

    async def _ask(self, token: str, path: str) -> HttpResponse | None:
        digest = hashlib.sha256(token.encode("ascii")).digest()
        user = await self._users.get(digest, lambda: self._user_of(token))
        if user is None:
            text = "the cluster does not know this token"
            return _unauthorized(text, f'{CHALLENGE}, error="invalid_token"')
        if not await self._access.get((digest, path), lambda: self._may_get(user, path)):
            text = f"{user.username} may not get {path}: a ClusterRole with this path in "
            return plain(HTTPStatus.FORBIDDEN, f"{text}nonResourceURLs would allow it")
        return None

    async def _user_of(self, token: str) -> User | None:
        review = await self._review(TOKEN_REVIEWS, {"token": token}, _TokenReview)
        return review.status.user if review.status.authenticated else None

    async def _may_get(self, user: User, path: str) -> bool:
        review = await self._review(SUBJECT_ACCESS_REVIEWS, user.may_get(path), _AccessReview)
        allowed = review.status.allowed and not review.status.denied
        log.debug("metrics reader reviewed", user=user.username, path=path, allowed=allowed)
        return allowed

    async def _review(
        self, resource: Resource, spec: Mapping[str, Any], kind: type[Review]
    ) -> Review:
        body = {"apiVersion": resource.api_version, "kind": resource.kind, "spec": spec}
        async with self._room:
            answer = await self._client.request(
                "POST",
                resource.path(),
                body=body,
                timeout_seconds=REVIEW_SECONDS,
                what=f"create {resource.qualified}",
            )
        review = msgspec.json.decode(answer, type=kind)
        if self._failing:
            self._failing = False
            log.info("metrics readers can be checked again")
        return review


def _unauthorized(text: str, challenge: str) -> HttpResponse:
    return plain(HTTPStatus.UNAUTHORIZED, text, WWW_Authenticate=challenge)
