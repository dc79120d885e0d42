"""How bodies travel between the gateway and us, as the gateway is configured."""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from epp.gen.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from epp.gen.envoy.service.ext_proc.v3.external_processor_pb2 import ProtocolConfiguration


class BodyMode(Enum):
    """The modes we serve; the values are Envoy's."""

    __hash__ = object.__hash__  # by identity and in C: looked up for every request

    NONE = ProcessingMode.NONE
    BUFFERED = ProcessingMode.BUFFERED
    FULL_DUPLEX = ProcessingMode.FULL_DUPLEX_STREAMED


_MODES = {mode.value: mode for mode in BodyMode}

WHOLE_BODIES: Mapping[tuple[BodyMode, BodyMode], frozenset[str]] = MappingProxyType(
    {
        (request, response): frozenset(
            field
            for field, mode in (("request_body", request), ("response_body", response))
            if mode is BodyMode.BUFFERED
        )
        for request in BodyMode
        for response in BodyMode
    }
)
"""Modes of request and response → fields of messages that hold a whole body, whatever they say of
the end of the stream: that means that trailers follow."""


def body_modes(config: ProtocolConfiguration) -> tuple[BodyMode, BodyMode]:
    """Return the modes of request and response bodies.

    Raises:
        ValueError: We do not serve that combination; the text is for the operator.
    """
    request = _MODES.get(config.request_body_mode)
    response = _MODES.get(config.response_body_mode)
    if request is None or request is BodyMode.NONE or response is None:
        raise ValueError(
            f"unsupported processing mode: request_body_mode {_name(config.request_body_mode)}, "
            f"response_body_mode {_name(config.response_body_mode)}; supported are BUFFERED and "
            f"FULL_DUPLEX_STREAMED request bodies, and NONE, BUFFERED and FULL_DUPLEX_STREAMED "
            f"response bodies"
        )
    return request, response


def _name(value: int) -> str:
    modes = ProcessingMode.BodySendMode.items()
    return next((name for name, number in modes if number == value), str(value))
