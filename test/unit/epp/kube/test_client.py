"""Requests and watches over real HTTP: answers, refusals, deadlines, credentials."""

import asyncio
import re
import subprocess
import sys
from contextlib import asynccontextmanager

import orjson
import pytest

from epp.kube import errors
from epp.kube.client import KubeClient
from epp.kube.connection_settings import ConnectionSettings, StaticAuthorization
from epp.kube.errors import UnauthorizedError, UnreachableError
from epp.kube.exec_plugin import CredentialsError
from epp.kube.resource import LEASES, PODS
from epp.testing.fake_kube import FakeKube
from epp.testing.fake_kube_faults import CutMidLine, Hang, Refuse, Reset, Silence

PATH = PODS.path(namespace="demo")
POD = {"metadata": {"name": "a", "namespace": "demo"}}


class Tokens:
    """Credentials that have one token after the other; the last one lasts."""

    certificate = None

    def __init__(self, *tokens: str) -> None:
        self._tokens = list(tokens)

    async def authorization(self) -> str:
        return f"Bearer {self._tokens[0]}"

    def reject(self, authorization: str) -> bool:
        if authorization == f"Bearer {self._tokens[0]}" and len(self._tokens) > 1:
            self._tokens.pop(0)
            return True
        return False

    async def close(self) -> None:
        self.closed = True


class NoCredentials:
    certificate = None

    async def close(self) -> None:
        pass

    async def authorization(self) -> str:
        raise CredentialsError("exec plugin x ended with status 1")

    def reject(self, authorization: str) -> bool:
        return False


@pytest.fixture
async def kube():
    async with FakeKube() as kube:
        yield kube


@pytest.fixture
async def client(kube):
    client = KubeClient(kube.settings(), user_agent="test/1")
    yield client
    await client.close()


async def test_a_request_gives_the_body_as_it_came(kube, client) -> None:
    kube.create(PODS, POD)

    answer = orjson.loads(await client.request("GET", PATH, query={"labelSelector": "!a"}))

    assert [item["metadata"]["name"] for item in answer["items"]] == ["a"]
    assert kube.requests[0].query == {"labelSelector": "!a"}


async def test_selectors_and_names_survive_the_url(kube, client) -> None:
    selector = "a in (x,y),b!=ü&c+d=%"

    await client.request("GET", PATH, query={"fieldSelector": "metadata.name=a/b", "x": selector})

    assert kube.requests[0].query == {"fieldSelector": "metadata.name=a/b", "x": selector}


@pytest.mark.parametrize(
    ("method", "content_type", "body"),
    [
        pytest.param("POST", "application/json", {**POD, "spec": {}}, id="create"),
        pytest.param("PATCH", "application/merge-patch+json", {"spec": {"a": None}}, id="merge"),
        pytest.param("PATCH", "application/apply-patch+yaml", {"spec": {"b": 1}}, id="apply"),
    ],
)
async def test_bodies_go_out_as_their_content_type(
    kube, client, method: str, content_type: str, body: object
) -> None:
    if method == "PATCH":
        kube.create(PODS, {**POD, "spec": {"a": 1}})
    name = "a" if method == "PATCH" else ""
    path = PODS.path(namespace="demo", name=name)

    answer = await client.request(
        method, path, query={"fieldManager": "t"}, body=body, content_type=content_type
    )

    assert orjson.loads(answer)["metadata"]["name"] == "a"


@pytest.mark.parametrize(
    ("fault", "want"),
    [
        pytest.param(Refuse(status=400), errors.InvalidError, id="400"),
        pytest.param(Refuse(status=401), errors.UnauthorizedError, id="401"),
        pytest.param(Refuse(status=403), errors.ForbiddenError, id="403"),
        pytest.param(Refuse(status=404), errors.NotFoundError, id="404"),
        pytest.param(Refuse(status=409), errors.ConflictError, id="409"),
        pytest.param(Refuse(status=410), errors.GoneError, id="410"),
        pytest.param(Refuse(status=422), errors.InvalidError, id="422"),
        pytest.param(Refuse(status=429), errors.TooManyRequestsError, id="429"),
        pytest.param(Refuse(status=500), errors.ServerError, id="500"),
        pytest.param(Refuse(status=503), errors.ServerError, id="503"),
        pytest.param(
            Refuse(status=503, retry_after=2), errors.TooManyRequestsError, id="503-later"
        ),
        pytest.param(Refuse(status=418), errors.ApiError, id="other"),
        pytest.param(Reset(), UnreachableError, id="reset"),
    ],
)
@pytest.mark.parametrize("watches", [False, True], ids=["request", "watch"])
async def test_refusals_are_errors_that_name_what_was_asked(
    kube, client, fault, want: type[errors.ApiError], watches: bool
) -> None:
    kube.faults.add(fault)
    what = "touch pods in namespace demo"

    with pytest.raises(want, match=f"^{what}: ") as caught:
        if watches:
            async with client.lines(PATH, query={"watch": "1"}, idle_seconds=5, what=what):
                pass
        else:
            await client.request("GET", PATH, what=what)

    assert type(caught.value) is want
    if isinstance(fault, Refuse):
        assert caught.value.retry_after == fault.retry_after


async def test_without_a_name_method_and_path_are_named(kube, client) -> None:
    with pytest.raises(errors.NotFoundError, match=f"^DELETE {PATH}/a: pods"):
        await client.request("DELETE", f"{PATH}/a")


async def test_a_fresh_token_is_tried_once_after_a_401(kube) -> None:
    kube.tokens = {"new"}
    client = KubeClient(kube.settings(), credentials=Tokens("old", "new"))

    await client.request("GET", PATH)
    async with client.lines(PATH, query={"watch": "1"}, idle_seconds=5):
        pass

    assert [one.authorization for one in kube.requests] == [
        "Bearer old",
        "Bearer new",
        "Bearer new",
    ]
    await client.close()


async def test_a_second_401_is_final_and_shows_no_token(kube) -> None:
    kube.tokens = set()
    client = KubeClient(kube.settings(), credentials=Tokens("s3cr3t-1", "s3cr3t-2", "s3cr3t-3"))

    with pytest.raises(UnauthorizedError) as caught:
        await client.request("GET", PATH)

    assert len(kube.requests) == 2
    assert "s3cr3t" not in str(caught.value)
    await client.close()


async def test_credentials_that_cannot_be_had_are_a_failed_request(kube) -> None:
    client = KubeClient(kube.settings(), credentials=NoCredentials())

    with pytest.raises(UnauthorizedError, match="list pods: exec plugin x ended with status 1"):
        await client.request("GET", PATH, what="list pods")

    assert kube.requests == []
    await client.close()


async def test_closing_a_client_closes_its_credentials(kube) -> None:
    tokens = Tokens("x")

    await KubeClient(kube.settings(), credentials=tokens).close()

    assert tokens.closed


@asynccontextmanager
async def says(body: bytes, status: str = "400 Bad Request"):
    """A server that answers everything in its own words; repeats the request's authorization."""

    async def answer(reader, writer) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        sent = re.search(rb"(?i)authorization: ([^\r]*)", head)
        text = body.replace(b"%AUTH%", sent[1] if sent else b"")
        length = str(len(text)).encode()
        writer.write(b"HTTP/1.1 " + status.encode() + b"\r\nContent-Length: " + length)
        writer.write(b"\r\nConnection: close\r\n\r\n" + text)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        pytest.param(
            b"Client sent an HTTP request to an HTTPS server.\n",
            "HTTP status 400: Client sent an HTTP request to an HTTPS server.",
            id="tls-port",
        ),
        pytest.param(b"<html>\nno</html>", "HTTP status 400", id="page"),
        pytest.param(b"", "HTTP status 400", id="nothing"),
        pytest.param(b"you sent %AUTH%!", "HTTP status 400: you sent …!", id="our-token"),
        pytest.param(b'{"message": "of a Status"}', "of a Status", id="status-object"),
    ],
)
async def test_what_a_server_says_in_plain_text_is_told(body: bytes, told: str) -> None:
    async with says(body) as server:
        settings = ConnectionSettings(
            server=server, identity=StaticAuthorization(header="Bearer t0p")
        )
        client = KubeClient(settings)

        with pytest.raises(errors.InvalidError) as caught:
            await client.request("GET", PATH, what="list pods")

        await client.close()
    assert str(caught.value) == f"list pods: {told}"


async def test_a_hanging_server_costs_one_deadline(kube, client) -> None:
    kube.faults.add(Hang())

    with pytest.raises(UnreachableError, match=r"list pods: no answer within 0.1 s"):
        await client.request("GET", PATH, timeout_seconds=0.1, what="list pods")


async def test_a_refused_connection_names_the_server(kube, client) -> None:
    await kube.stop()

    with pytest.raises(UnreachableError, match=f"cannot connect to 127.0.0.1:{kube.port}: "):
        await client.request("GET", PATH)


async def test_a_watch_gives_one_document_per_item(kube, client) -> None:
    kube.create(PODS, POD)
    kinds = []

    async with client.lines(PATH, query={"watch": "1"}, idle_seconds=5) as lines:
        kinds.append(orjson.loads(await anext(lines))["type"])
        kube.patch(PODS, "demo", "a", {"spec": {"x": 1}})
        kube.delete(PODS, "demo", "a")
        kinds.append(orjson.loads(await anext(lines))["type"])
        kinds.append(orjson.loads(await anext(lines))["type"])
        kube.drop_watches(abort=False)
        rest = [line async for line in lines]

    assert (kinds, rest) == (["ADDED", "MODIFIED", "DELETED"], [])


async def test_a_long_event_arrives_in_one_piece(kube, client) -> None:
    kube.create(PODS, {**POD, "spec": {"x": "y" * 3_000_000}})

    async with client.lines(PATH, query={"watch": "1"}, idle_seconds=5) as lines:
        assert len(orjson.loads(await anext(lines))["object"]["spec"]["x"]) == 3_000_000


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        pytest.param(CutMidLine(), "connection lost", id="cut-in-the-middle"),
        pytest.param(Silence(), "silent for too long", id="silent"),
    ],
)
async def test_a_broken_watch_is_unreachable(kube, client, fault, message: str) -> None:
    kube.create(PODS, POD)
    version = str(kube.version)
    kube.faults.add(fault)
    kube.patch(PODS, "demo", "a", {"spec": {"x": 1}})

    with pytest.raises(UnreachableError, match=f"watch pods: {message}"):
        query = {"watch": "1", "resourceVersion": version}
        async with client.lines(PATH, query=query, idle_seconds=0.1, what="watch pods") as lines:
            await anext(lines)


async def test_cancelled_watches_give_their_connections_back(kube, client) -> None:
    for _ in range(120):  # more than the pool has
        async with client.lines(PATH, query={"watch": "1"}, idle_seconds=5) as lines:
            reading = asyncio.ensure_future(anext(lines))
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait((reading,))

    await client.request("GET", PATH, timeout_seconds=5)
    await kube.until(lambda: kube.watching(PODS) == 0)


async def test_a_full_pool_costs_one_deadline(kube, client) -> None:
    async def watch(opened: asyncio.Semaphore) -> None:
        async with client.lines(PATH, query={"watch": "1"}, idle_seconds=60) as lines:
            opened.release()
            await anext(lines)

    opened = asyncio.Semaphore(0)
    watches = [asyncio.create_task(watch(opened)) for _ in range(100)]
    for _ in watches:
        await opened.acquire()

    with pytest.raises(UnreachableError, match=r"no answer within 0.1 s"):
        await client.request("GET", PATH, timeout_seconds=0.1)

    for task in watches:
        task.cancel()
    await asyncio.wait(watches)
    await client.request("GET", PATH, timeout_seconds=5)


async def test_a_closed_client_refuses_and_closes_again(client) -> None:
    await client.close()

    with pytest.raises(UnreachableError, match="the client is closed"):
        await client.request("GET", PATH)

    await client.close()


async def test_closing_ends_a_watch(kube, client) -> None:
    async def watch() -> None:
        async with client.lines(PATH, query={"watch": "1"}, idle_seconds=60) as lines:
            await anext(lines)

    watching = asyncio.create_task(watch())
    await kube.until(lambda: kube.watching(PODS) == 1)
    await client.close()

    with pytest.raises(UnreachableError):
        await watching


async def test_the_proxies_of_the_process_are_not_ours(kube, client, monkeypatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")

    await client.request("GET", LEASES.path(namespace="demo"))


def test_nothing_but_a_client_costs_the_http_library() -> None:
    code = (
        "import sys, epp.kube.config, epp.kube.client, epp.kube.informer\n"
        "heavy = {'aiohttp', 'kubernetes', 'requests'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
