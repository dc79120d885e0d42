"""EndpointSeries: forgets the series of endpoints that leave the pool, so that churn adds none.

Follows the pool as an endpoint listener of the datastore, structurally: this package does not
know it.
"""

from typing import Protocol

from epp.metrics.metrics import Metrics


class EndpointLike(Protocol):
    """What is needed of an endpoint."""

    @property
    def name(self) -> str:
        """``pod-rank-i``."""
        ...

    @property
    def namespace(self) -> str:
        """Namespace of the pod."""
        ...


class EndpointSeries:
    """Tells ``Metrics`` which endpoints are gone."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def endpoint_added(self, endpoint: EndpointLike) -> None:
        """A new endpoint has no series until it is picked."""

    def endpoint_updated(self, old: EndpointLike, new: EndpointLike) -> None:
        """Name and namespace are an endpoint's identity; they never change."""

    def endpoint_removed(self, endpoint: EndpointLike) -> None:
        """Forget its series."""
        self._metrics.endpoint_removed(endpoint.name, endpoint.namespace)
