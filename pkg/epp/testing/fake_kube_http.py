"""The HTTP side of the fake API server: paths and verbs to reads, writes and watches."""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import orjson
import yaml
from aiohttp import web

from epp.kube.resource import Resource
from epp.testing.fake_kube_faults import Action, Delay, Faults, Hang, Refuse, Reset
from epp.testing.fake_kube_objects import FakeObjects, Key, StatusError, Stored, merge_patch
from epp.testing.fake_kube_selectors import Json, SelectorError, matcher
from epp.testing.fake_kube_watch import Watcher, serve_watch, status

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_MERGES = {"application/merge-patch+json", "application/strategic-merge-patch+json"}
_APPLY = "application/apply-patch+yaml"


class Request(NamedTuple):
    """A request that arrived; ``verb`` as RBAC names it."""

    verb: str
    path: str
    query: Mapping[str, str]
    authorization: str


class _Target(NamedTuple):
    """What a path means."""

    resource: Resource
    namespace: str
    name: str
    subresource: str

    @property
    def key(self) -> Key:
        return (self.resource, self.namespace, self.name)


class ApiHandler:
    """State of a fake API server, and its answers.

    Args:
        resources: Kinds that it serves from the start.
        streams_lists: ``yes``; ``refused`` answers 422 to ``sendInitialEvents`` as a server whose
            feature is off; ``ignored`` is a server that has never heard of it.

    Attributes:
        faults: What goes wrong.
        requests: What arrived, in order.
        tokens: Bearer tokens that are accepted; None accepts everything.
        answers: Kinds that are not stored but computed when created, as reviews are.
        streams_lists: As the argument; may be changed.
        objects: What is stored.
        watchers: Open watches.
    """

    def __init__(self, resources: Iterable[Resource], *, streams_lists: str) -> None:
        self.faults = Faults()
        self.requests: list[Request] = []
        self.tokens: set[str] | None = None
        self.answers: dict[Resource, Callable[[Json], Json]] = {}
        self.streams_lists = streams_lists
        self.objects = FakeObjects(self._changed)
        self.watchers: list[Watcher] = []
        self._resources = list(resources)
        self._snapshots: dict[str, tuple[int, list[Stored]]] = {}
        self._page_numbers = itertools.count(1)
        self._waiting: list[asyncio.Event] = []
        self._stopping = asyncio.Event()

    def _changed(self) -> None:
        for watcher in self.watchers:
            watcher.wake.set()
        self._happened()

    def _happened(self) -> None:
        for event in self._waiting:
            event.set()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except StatusError as exc:
            return _refusal(exc.code, exc.reason, exc.message)
        except SelectorError as exc:
            return _refusal(400, "BadRequest", str(exc))
        finally:
            self._happened()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        target = self._target(request.path)
        verb = _verb(request, target)
        authorization = request.headers.get("Authorization", "")
        self.requests.append(Request(verb, request.path, dict(request.query), authorization))
        self._happened()
        if self.tokens is not None and authorization.removeprefix("Bearer ") not in self.tokens:
            return _refusal(401, "Unauthorized", "Unauthorized")
        fault = self.faults.take(verb, target.resource.plural if target else "")
        match fault.action if fault else None:
            case Refuse(status=code, reason=reason, message=message, retry_after=after):
                return _refusal(code, reason, message or f"fault {code}", after)
            case Hang() if fault is not None:
                await self._hang(fault.removed)
            case Delay(seconds=seconds):
                await asyncio.sleep(seconds)
            case Reset():
                if request.transport is not None:
                    request.transport.abort()
                return web.Response()
        if target is None:
            return self._discover(request.path)
        if verb == "watch":
            return await self._watch(request, target, fault.action if fault else None)
        if request.method == "GET":
            return self._list(request, target) if not target.name else self._get(target)
        return _json(await self._write(request, target), 201 if verb == "create" else 200)

    async def _hang(self, removed: asyncio.Event) -> None:
        waits = [asyncio.create_task(event.wait()) for event in (removed, self._stopping)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _target(self, path: str) -> _Target | None:
        for resource in self._resources:
            if path == resource.root or not path.startswith(f"{resource.root}/"):
                continue
            parts = path.removeprefix(f"{resource.root}/").split("/")
            namespace = ""
            if parts[0] == "namespaces" and len(parts) > 2:
                namespace, parts = parts[1], parts[2:]
            if parts[0] == resource.plural:
                name, subresource = (*parts[1:], "", "")[:2]
                return _Target(resource, namespace, name, subresource)
        return None

    def _discover(self, path: str) -> web.Response:
        served = [resource for resource in self._resources if resource.root == path]
        if not served:
            raise StatusError(404, "NotFound", "the server could not find the requested resource")
        names = [
            {"name": one.plural, "kind": one.kind, "namespaced": one.namespaced} for one in served
        ]
        return _json(orjson.dumps({"kind": "APIResourceList", "resources": names}))

    def _get(self, target: _Target) -> web.Response:
        return _json(self.objects.get(target.key).json)

    def _list(self, request: web.Request, target: _Target) -> web.Response:
        query = request.query
        limit, token = int(query.get("limit", "0")), query.get("continue", "")
        if token:
            if token not in self._snapshots:
                message = "The provided continue parameter is too old"
                raise StatusError(410, "Expired", message)
            version, rest = self._snapshots[token]
        else:
            matches = matcher(query.get("labelSelector", ""), query.get("fieldSelector", ""))
            version = self.objects.version
            rest = list(self.objects.select(target.resource, target.namespace, matches))
        page, rest = (rest[:limit], rest[limit:]) if limit else (rest, [])
        meta = {"resourceVersion": str(version)}
        if rest:
            meta["continue"] = f"page-{next(self._page_numbers)}"
            self._snapshots[meta["continue"]] = (version, rest)
        head = orjson.dumps({"kind": f"{target.resource.kind}List", "metadata": meta})
        items = b",".join(stored.json for stored in page)
        return _json(head[:-1] + b',"items":[' + items + b"]}")

    async def _watch(
        self, request: web.Request, target: _Target, action: Action | None
    ) -> web.StreamResponse:
        query = dict(request.query)
        if "sendInitialEvents" in query and self.streams_lists == "refused":
            message = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch"
            raise StatusError(422, "Invalid", message)
        if self.streams_lists == "ignored":
            query.pop("sendInitialEvents", None)
        version = int(query.get("resourceVersion") or "0") or self.objects.version
        self.objects.since(version)
        watcher = Watcher(
            resource=target.resource,
            namespace=target.namespace,
            matches=matcher(query.get("labelSelector", ""), query.get("fieldSelector", "")),
            version=version,
            query=query,
        )
        self.watchers.append(watcher)
        self._happened()
        try:
            return await serve_watch(request, watcher, self.objects, action)
        finally:
            self.watchers.remove(watcher)

    async def _write(self, request: web.Request, target: _Target) -> bytes:
        body = await _body(request)
        if target.resource in self.answers and request.method == "POST":
            return orjson.dumps(self.answers[target.resource](body))
        match request.method:
            case "POST":
                body.pop("status", None)
                return self.objects.create(target.resource, target.namespace, body).json
            case "PUT":
                return self._update(target, body)
            case "PATCH":
                return self._patch(request, target, body)
            case _:
                return self.objects.delete(target.key).json

    def _patch(self, request: web.Request, target: _Target, body: Json) -> bytes:
        content_type = request.headers.get("Content-Type", "")
        if content_type == _APPLY and not request.query.get("fieldManager"):
            raise StatusError(400, "BadRequest", "fieldManager: Required value")
        if content_type != _APPLY and content_type not in _MERGES:
            raise StatusError(415, "UnsupportedMediaType", f"{content_type} is not supported")
        try:
            known = self.objects.get(target.key).obj
        except StatusError:
            if content_type != _APPLY or target.subresource:
                raise
            return self.objects.create(target.resource, target.namespace, body).json
        asked = (body.get("metadata") or {}).get("resourceVersion")
        merged = merge_patch(known, body)
        merged["metadata"]["resourceVersion"] = asked
        return self._update(target, merged)

    def _update(self, target: _Target, body: Json) -> bytes:
        """Only the status, or everything but the status, as the path says."""
        known = self.objects.get(target.key).obj
        if target.subresource == "status":
            version = body.get("metadata", {}).get("resourceVersion")
            fresh = {**known, "status": body.get("status", {})}
            fresh["metadata"] = {**known["metadata"], "resourceVersion": version}
        else:
            fresh = {**body, "status": known["status"]} if "status" in known else dict(body)
            if "status" not in known:
                fresh.pop("status", None)
        return self.objects.update(target.key, fresh).json


def _verb(request: web.Request, target: _Target | None) -> str:
    if request.method != "GET":
        return _VERBS.get(request.method, request.method.lower())
    if target is None or target.name:
        return "get"
    return "watch" if request.query.get("watch") in {"1", "true"} else "list"


async def _body(request: web.Request) -> Json:
    raw = await request.read()
    try:
        body = orjson.loads(raw) if raw else {}
    except ValueError:
        body = yaml.safe_load(raw)
    if not isinstance(body, dict):
        raise StatusError(400, "BadRequest", "the body is not an object")
    return body


def _json(body: bytes, code: int = 200) -> web.Response:
    return web.Response(body=body, status=code, content_type="application/json")


def _refusal(code: int, reason: str, message: str, retry_after: int | None = None) -> web.Response:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    body = orjson.dumps(status(code, reason, message))
    return web.Response(body=body, status=code, headers=headers, content_type="application/json")
