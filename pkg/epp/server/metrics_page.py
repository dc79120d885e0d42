"""The /metrics page, made in short steps so that the event loop stays free for requests.

prometheus_client's encoders print one metric family at a time, a limited number of samples per
step. The pieces together are what one call of the encoder for the whole registry would give.
"""

import asyncio
import zlib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from itertools import islice
from typing import Protocol

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

SAMPLES_PER_STEP = 250
"""About a millisecond of work on the machines of this field."""

_END_OF_OPENMETRICS = b"# EOF\n"
_GZIP_WINDOW = 31
"""zlib's way to say: gzip format, 32 KiB window."""

_GZIP_LEVEL = 4


class Registry(Protocol):
    """What is scraped: a registry, or the part of one that a client asked for."""

    def collect(self) -> Iterable[Metric]:
        """Every metric family."""
        ...


class _Part(Collector):
    """Some samples of one family, as the registry of one encoder call."""

    def __init__(self, metric: Metric, samples: list[Sample]) -> None:
        self._part = Metric(metric.name, metric.documentation, metric.type)
        self._part.samples = samples

    def collect(self) -> Iterable[Metric]:
        return [self._part]


def choose_format(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """Encoder and content type for an Accept header: text 0.0.4, text 1.0 or OpenMetrics."""
    return choose_encoder(accept)


def gzip_accepted(accept_encoding: str) -> bool:
    """Tell whether an Accept-Encoding header allows gzip."""
    for item in accept_encoding.split(","):
        coding, _, parameters = item.partition(";")
        if coding.strip().lower() in {"gzip", "*"}:
            quality = parameters.replace(" ", "").lower()
            return quality not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


async def page(
    registry: Registry, encode: Callable[[Collector], bytes]
) -> AsyncGenerator[bytes, None]:
    """Print a registry, yielding to other work between the pieces."""
    is_openmetrics = False
    for metric in registry.collect():
        for piece in _family_pieces(metric, encode):
            is_openmetrics = piece.endswith(_END_OF_OPENMETRICS)
            yield piece.removesuffix(_END_OF_OPENMETRICS)
            await asyncio.sleep(0)
    if is_openmetrics:
        yield _END_OF_OPENMETRICS


async def gzipped(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Compress a page as it is made."""
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    async with aclosing(pieces):
        async for piece in pieces:
            yield compressor.compress(piece)
    yield compressor.flush()


def _family_pieces(metric: Metric, encode: Callable[[Collector], bytes]) -> Iterator[bytes]:
    samples = iter(metric.samples)
    first = list(islice(samples, SAMPLES_PER_STEP))
    yield encode(_Part(metric, first))
    while part := list(islice(samples, SAMPLES_PER_STEP)):
        yield _without_head(encode(_Part(metric, part)))


def _without_head(piece: bytes) -> bytes:
    """Drop the HELP and TYPE lines, which a family has once."""
    while piece.startswith(b"# ") and piece != _END_OF_OPENMETRICS:
        piece = piece[piece.index(b"\n") + 1 :]
    return piece
