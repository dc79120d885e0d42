"""The guard of the metrics port against a scripted API server."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from epp.kube.errors import ApiError, ForbiddenError, UnreachableError
from epp.server.http_connection import HttpRequest, HttpResponse
from epp.server.metrics_auth import MAX_REVIEWS, MetricsAuth
from epp.testing.fake_clock import FakeClock

USER = {"username": "prom", "uid": "u1", "groups": ["g"], "extra": {"k": ["v"]}}
SECRET = "s3cr3t-token.with.dots"


class ApiServer:
    """Knows tokens and what their owners may get; records every review."""

    def __init__(self) -> None:
        self.users: dict[str, Mapping[str, Any]] = {SECRET: USER}
        self.paths = {"/metrics"}
        self.denied: set[str] = set()
        self.reviews: list[tuple[str, Any]] = []
        self.calls: list[Mapping[str, Any]] = []
        self.error: ApiError | None = None
        self.answer: bytes | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.running = 0
        self.most_running = 0

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object | None = None,
        content_type: str = "application/json",
        timeout_seconds: float = 30.0,
        what: str = "",
    ) -> bytes:
        assert isinstance(body, Mapping)
        spec = body["spec"]
        self.reviews.append((path.rpartition("/")[2], spec))
        self.calls.append(
            {"method": method, "body": body, "what": what, "timeout": timeout_seconds}
        )
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self.open.wait()
        finally:
            self.running -= 1
        if self.error is not None:
            raise self.error
        if self.answer is not None:
            return self.answer
        return orjson.dumps({**body, "status": self.status(spec)})

    def status(self, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        if "token" in spec:
            user = self.users.get(spec["token"])
            return {"user": {}} if user is None else {"authenticated": True, "user": user}
        path = spec["nonResourceAttributes"]["path"]
        return {"allowed": path in self.paths, "denied": path in self.denied}

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.reviews]


@pytest.fixture
def api() -> ApiServer:
    return ApiServer()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def auth(api: ApiServer, clock: FakeClock) -> MetricsAuth:
    return MetricsAuth(api, clock=clock)


async def ask(
    auth: MetricsAuth, authorization: str = f"Bearer {SECRET}", path: str = "/metrics"
) -> HttpResponse | None:
    headers = {"authorization": authorization} if authorization else {}
    return await auth.check(HttpRequest(method="GET", path=path, headers=headers))


def status(response: HttpResponse | None) -> int:
    return 200 if response is None else int(response.status)


async def test_a_known_owner_who_may_get_the_path_is_served(
    auth: MetricsAuth, api: ApiServer
) -> None:
    assert await ask(auth) is None

    [token, access] = api.calls
    assert token["body"] == {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": SECRET},
    }
    assert access["body"] == {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": "prom",
            "uid": "u1",
            "groups": ["g"],
            "extra": {"k": ["v"]},
            "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
        },
    }
    assert {call["method"] for call in api.calls} == {"POST"}
    assert [call["what"] for call in api.calls] == [
        "create tokenreviews.authentication.k8s.io",
        "create subjectaccessreviews.authorization.k8s.io",
    ]


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param("", id="no-header"),
        pytest.param("Bearer", id="no-token"),
        pytest.param("Bearer  ", id="spaces"),
        pytest.param("Basic dXNlcjpwYXNz", id="other-scheme"),
        pytest.param(f"Bearer {SECRET},Bearer {SECRET}", id="two-headers"),
        pytest.param("Bearer a b", id="two-words"),
        pytest.param("Bearer tökén", id="not-ascii"),
    ],
)
async def test_without_a_token_nobody_is_asked(
    auth: MetricsAuth, api: ApiServer, authorization: str
) -> None:
    refusal = await ask(auth, authorization)

    assert refusal is not None
    assert refusal.status is HTTPStatus.UNAUTHORIZED
    assert refusal.headers["WWW-Authenticate"] == 'Bearer realm="epp"'
    assert api.reviews == []


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(f"bearer {SECRET}", id="lower-case"),
        pytest.param(f"BEARER   {SECRET} ", id="spaces"),
    ],
)
async def test_the_scheme_may_be_written_in_other_ways(
    auth: MetricsAuth, authorization: str
) -> None:
    assert await ask(auth, authorization) is None


async def test_an_unknown_token_is_401(auth: MetricsAuth, api: ApiServer) -> None:
    refusal = await ask(auth, "Bearer other")

    assert refusal is not None
    assert refusal.status is HTTPStatus.UNAUTHORIZED
    assert refusal.headers["WWW-Authenticate"] == 'Bearer realm="epp", error="invalid_token"'
    assert api.kinds == ["tokenreviews"]


async def test_a_path_that_the_owner_may_not_get_is_403(auth: MetricsAuth) -> None:
    refusal = await ask(auth, path="/debug/pool")

    assert refusal is not None
    assert refusal.status is HTTPStatus.FORBIDDEN
    assert b"prom may not get /debug/pool" in bytes(refusal.body)  # type: ignore[arg-type] # not streamed


async def test_a_denial_counts_for_more_than_a_permission(
    auth: MetricsAuth, api: ApiServer
) -> None:
    """An authorizer may deny what another one allows; the API server tells both."""
    api.denied.add("/metrics")

    refusal = await ask(auth)

    assert refusal is not None
    assert refusal.status is HTTPStatus.FORBIDDEN


async def test_answers_are_kept_for_a_minute(
    auth: MetricsAuth, api: ApiServer, clock: FakeClock
) -> None:
    await ask(auth)
    clock.advance(59.9)
    await ask(auth)
    kept = len(api.reviews)
    clock.advance(0.1)
    await ask(auth)

    assert (kept, len(api.reviews)) == (2, 4)


async def test_a_permission_that_was_taken_away_ends_within_a_minute(
    auth: MetricsAuth, api: ApiServer, clock: FakeClock
) -> None:
    before = status(await ask(auth))
    api.paths.clear()
    clock.advance(60)

    assert (before, status(await ask(auth))) == (200, 403)


@pytest.mark.parametrize(
    "authorization, path, refused",
    [
        pytest.param("Bearer late", "/metrics", 401, id="token-that-becomes-known"),
        pytest.param(f"Bearer {SECRET}", "/debug/pool", 403, id="permission-that-is-given"),
    ],
)
async def test_refusals_are_kept_shorter(
    auth: MetricsAuth,
    api: ApiServer,
    clock: FakeClock,
    authorization: str,
    path: str,
    refused: int,
) -> None:
    before = status(await ask(auth, authorization, path))
    api.users["late"] = USER
    api.paths.add("/debug/pool")
    clock.advance(9.9)
    kept = status(await ask(auth, authorization, path))
    clock.advance(0.1)

    assert (before, kept) == (refused, refused)
    assert status(await ask(auth, authorization, path)) == 200


async def test_requests_at_the_same_time_share_one_review(
    auth: MetricsAuth, api: ApiServer
) -> None:
    api.open.clear()
    api.paths.add("/debug/pool")
    asked = [
        asyncio.create_task(ask(auth, path=path))
        for path in ("/metrics", "/metrics", "/debug/pool")
    ]
    await asyncio.sleep(0)
    api.open.set()

    assert await asyncio.gather(*asked) == [None, None, None]
    assert sorted(api.kinds) == ["subjectaccessreviews", "subjectaccessreviews", "tokenreviews"]


async def test_few_reviews_run_at_once(auth: MetricsAuth, api: ApiServer) -> None:
    api.open.clear()
    asked = [asyncio.create_task(ask(auth, f"Bearer stranger{n}")) for n in range(50)]
    for _ in range(5):
        await asyncio.sleep(0)
    api.open.set()
    await asyncio.gather(*asked)

    assert api.most_running == MAX_REVIEWS
    assert len(api.reviews) == 50


@pytest.mark.parametrize(
    "error, answer",
    [
        pytest.param(UnreachableError("refused"), None, id="unreachable"),
        pytest.param(ForbiddenError("cannot create tokenreviews"), None, id="not-allowed-to-ask"),
        pytest.param(None, b"<html>", id="not-json"),
        pytest.param(None, b"{}", id="no-status"),
        pytest.param(None, b'{"status":{"authenticated":"yes"}}', id="wrong-type"),
    ],
)
async def test_without_an_answer_there_is_no_page_and_the_next_asks_again(
    auth: MetricsAuth, api: ApiServer, error: ApiError | None, answer: bytes | None
) -> None:
    api.error, api.answer = error, answer

    with capture_logs() as logs:
        refused = [status(await ask(auth)) for _ in range(2)]
        api.error = api.answer = None
        recovered = status(await ask(auth))

    assert (refused, recovered) == ([503, 503], 200)
    assert [line["event"] for line in logs if line["log_level"] != "debug"] == [
        "metrics readers cannot be checked, nobody gets a page",
        "metrics readers can be checked again",
    ]


async def test_a_known_owner_is_served_from_memory_while_the_api_is_away(
    auth: MetricsAuth, api: ApiServer, clock: FakeClock
) -> None:
    await ask(auth)
    api.error = UnreachableError("refused")

    within, after = await ask(auth), None
    clock.advance(60)
    after = await ask(auth)

    assert (status(within), status(after)) == (200, 503)


async def test_a_token_is_neither_logged_nor_kept(auth: MetricsAuth, api: ApiServer) -> None:
    with capture_logs() as logs:
        await ask(auth)
        await ask(auth, path="/debug/pool")
        api.error = UnreachableError("create tokenreviews: refused")
        refusal = await ask(auth, "Bearer an0ther-t0ken")

    assert refusal is not None
    told = repr((logs, refusal, vars(auth._users), vars(auth._access)))
    assert SECRET not in told
    assert "an0ther-t0ken" not in told


async def test_stop_ends_the_reviews_under_way(auth: MetricsAuth, api: ApiServer) -> None:
    api.open.clear()
    asked = asyncio.create_task(ask(auth))
    await asyncio.sleep(0.01)

    await auth.stop()

    with pytest.raises(asyncio.CancelledError):
        await asked
    assert api.running == 0
