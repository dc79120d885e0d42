"""What a request parser is: bytes of a body in, the few facts that routing needs out.

Parsers are pure and keep no state. A parser reads; it never rewrites: ``splice`` does that on the
original bytes, so whatever a parser did not understand reaches the model server as it was sent.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from msgspec import Struct

_EMPTY: Mapping[str, Any] = MappingProxyType({})


class ParsedRequest(Struct, frozen=True, kw_only=True):
    """What a body says.

    Attributes:
        model: Its ``model``; empty when there is none.
        stream: Its ``stream`` is JSON true.
        payload: The parsed object; empty for an opaque body.
        opaque: Nothing in the body says which model is meant and the path does not demand one:
            route it like a request without a body, and pass the bytes through.
    """

    model: str = ""
    stream: bool = False
    payload: Mapping[str, Any] = _EMPTY
    opaque: bool = False


class RequestParser(Protocol):
    """Reads the body of one complete request."""

    def parse(self, path: str, body: bytes) -> ParsedRequest:
        """Parse ``body`` as the API at ``path`` defines it.

        Args:
            path: Path as the client sent it; a query string is ignored.
            body: The whole body.

        Raises:
            BadRequestError: The API at this path cannot accept the body; names the field.
        """
        ...
