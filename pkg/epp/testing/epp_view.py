"""What tests see of a running EPP and of the Envoy in front of it, through their admin ports.

Owns nothing: two port numbers and the questions that tests ask.
"""

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from epp.errors import TransportError
from epp.standalone import local_http

LOOPBACK = "127.0.0.1"


class EppView:
    """An EPP's debug views and metrics, and Envoy's statistics.

    Attributes:
        port: Where clients connect.
        metrics_port: The EPP's HTTP port.
        admin_port: Envoy's.
    """

    port: int
    metrics_port: int
    admin_port: int

    @property
    def url(self) -> str:
        """Base URL for OpenAI clients."""
        return f"http://{LOOPBACK}:{self.port}/v1"

    async def pool(self) -> dict[str, Any]:
        """The EPP's view of the pool."""
        return dict(await local_http.get_json(LOOPBACK, self.metrics_port, "/debug/pool"))

    async def decision(self, request_id: str) -> dict[str, Any]:
        """Why a request went where it went. Raises TransportError when the EPP knows nothing."""
        path = f"/debug/decisions?request_id={request_id}"
        found = await local_http.get_json(LOOPBACK, self.metrics_port, path)
        if not found:
            raise TransportError(f"no decision for {request_id}")
        return dict(found[0])

    async def metric(self, name: str, **labels: str) -> float:
        """Sum of a sample over the series that have these labels; 0 when there are none."""
        reply = await local_http.request(LOOPBACK, self.metrics_port, "GET", "/metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(reply.body.decode())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def envoy_stat(self, name: str) -> int:
        """One counter or gauge of Envoy; 0 when it does not exist."""
        reply = await local_http.request(LOOPBACK, self.admin_port, "GET", "/stats")
        for line in reply.body.decode().splitlines():
            key, _, value = line.partition(": ")
            if key == name:
                return int(value)
        return 0
