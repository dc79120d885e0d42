"""Requests to an API server as a proxy sees them, and predicates that choose among them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web


@dataclass(slots=True, kw_only=True)
class SeenRequest:
    """A request that reached the proxy.

    Attributes:
        method: HTTP method.
        path: Without the query.
        query: Parameters; of a repeated one the last value.
        resource: Plural of its kind; empty for paths that are none of an object.
        namespace: Empty for all namespaces.
        name: Of the object; empty for a collection.
        token: Bearer token, empty without.
        status: Of the answer; 0 as long as there is none.
    """

    method: str
    path: str
    query: Mapping[str, str]
    resource: str
    namespace: str
    name: str
    token: str
    status: int = 0


Match = Callable[[SeenRequest], bool]


def every_request(_: SeenRequest) -> bool:
    """Match all."""
    return True


def is_watch(seen: SeenRequest) -> bool:
    """Match watches."""
    return seen.method == "GET" and seen.query.get("watch") in {"true", "1"}


def is_list(seen: SeenRequest) -> bool:
    """Match lists, each page of them."""
    collection = bool(seen.resource) and not seen.name
    return seen.method == "GET" and collection and not is_watch(seen)


def seen_request(request: web.Request) -> SeenRequest:
    """What a request asks for."""
    parts = request.path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:] if parts[0] == "apis" else []
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    return SeenRequest(
        method=request.method,
        path=request.path,
        query=dict(request.query),
        resource=rest[0] if rest else "",
        namespace=namespace,
        name=rest[1] if len(rest) > 1 else "",
        token=request.headers.get("Authorization", "").removeprefix("Bearer "),
    )
