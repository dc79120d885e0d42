"""Discovery: which of several kinds does this API server serve."""

from collections.abc import Sequence

import msgspec

from epp.kube.api import KubeApi
from epp.kube.errors import NotFoundError, ServerError
from epp.kube.resource import Resource
from epp.logs import get_logger

log = get_logger(__name__)


class _ServedResource(msgspec.Struct, frozen=True):
    name: str = ""
    kind: str = ""


class _ServedResources(msgspec.Struct, frozen=True):
    resources: list[_ServedResource] | None = None


async def serves(client: KubeApi, resource: Resource) -> bool:
    """Tell whether the API server serves a kind in this group and version.

    Raises:
        ApiError: It does not say.
    """
    what = f"discover {resource.qualified} {resource.version}"
    try:
        answer = await client.request("GET", resource.root, what=what)
    except NotFoundError:
        return False
    try:
        served = msgspec.json.decode(answer, type=_ServedResources).resources or []
    except msgspec.DecodeError as exc:
        raise ServerError(f"{what}: the answer is not a list of resources ({exc})") from exc
    return any(one.name == resource.plural and one.kind == resource.kind for one in served)


async def first_served(client: KubeApi, candidates: Sequence[Resource]) -> Resource | None:
    """Choose the first kind that the API server serves; say which others it serves too.

    Args:
        client: Where to ask.
        candidates: In order of preference.

    Raises:
        ApiError: The API server does not say.
    """
    served = [resource for resource in candidates if await serves(client, resource)]
    if not served:
        return None
    chosen, *ignored = served
    if ignored:
        log.info(
            "several versions of a kind are served",
            kind=chosen.kind,
            using=chosen.api_version,
            ignored=[resource.api_version for resource in ignored],
        )
    return chosen
