"""Every error that crosses a package boundary.

::

    Exception
    ├── EppError                     a request cannot be served; becomes one immediate response
    │   ├── BadRequestError          400  the client sent something that cannot be served as it is
    │   ├── ModelNotFoundError       404  nobody declared the model (reference: BadConfiguration)
    │   ├── PayloadTooLargeError     413  the body is longer than --max-request-body
    │   ├── ResourceExhaustedError   429  the pool is saturated and the request may be shed
    │   ├── InternalError            500  our fault
    │   └── UnavailableError         503  no endpoint can take the request
    ├── ConfigError                  the operator wrote something we cannot use: names field and value
    └── TransportError               a peer or a connection failed: scrapes, streams

The HTTP status of a code is mapped in one place, ``handlers/messages.py``.
Reference: GAIE v0.3.0 pkg/epp/util/error/error.go (code names).
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    """Canonical codes; the values are the ``error_code`` label of the error counter."""

    BAD_REQUEST = "BadRequest"
    BAD_CONFIGURATION = "BadConfiguration"
    PAYLOAD_TOO_LARGE = "PayloadTooLarge"
    RESOURCE_EXHAUSTED = "InferencePoolResourceExhausted"
    INTERNAL = "Internal"
    SERVICE_UNAVAILABLE = "ServiceUnavailable"
    MODEL_SERVER_ERROR = "ModelServerError"
    UNKNOWN = "Unknown"


class EppError(Exception):
    """A request that cannot be served.

    Attributes:
        code: Decides the HTTP status and the ``error_code`` label.
        message: For the client: one sentence, no secrets, no stack.
        param: The request field at fault, for OpenAI's error object; None when there is none.
        dropped_reason: Value of the response header ``x-llm-d-request-dropped-reason``, or None.
    """

    code: ErrorCode = ErrorCode.INTERNAL

    def __init__(
        self, message: str, *, param: str | None = None, dropped_reason: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.dropped_reason = dropped_reason


class BadRequestError(EppError):
    """The body or a header cannot be understood."""

    code = ErrorCode.BAD_REQUEST


class ModelNotFoundError(EppError):
    """No InferenceModel of the pool declares the model, or it has no valid target."""

    code = ErrorCode.BAD_CONFIGURATION


class PayloadTooLargeError(EppError):
    """The request body exceeds the configured limit."""

    code = ErrorCode.PAYLOAD_TOO_LARGE


class ResourceExhaustedError(EppError):
    """The pool is saturated and this request may be shed."""

    code = ErrorCode.RESOURCE_EXHAUSTED


class InternalError(EppError):
    """A fault of ours; the text never carries details of the inside."""

    code = ErrorCode.INTERNAL


class UnavailableError(EppError):
    """No endpoint can take the request at all."""

    code = ErrorCode.SERVICE_UNAVAILABLE


class ConfigError(Exception):
    """An operator's input that cannot be used: a flag, a manifest, a file.

    Attributes:
        source: Where it was written: a file name, a flag, ``command line``.
        field: Path of the field at fault, e.g. ``spec.targetPorts[0].number``.
        value: What was written there, shortened by whoever prints it.
    """

    def __init__(
        self, message: str, *, source: str = "", field: str = "", value: object = None
    ) -> None:
        self.message = message
        self.source = source
        self.field = field
        self.value = value
        super().__init__(self._text())

    def _text(self) -> str:
        where = ": ".join(part for part in (self.source, self.field) if part)
        shown = "" if self.value is None else f" (got {_short(self.value)})"
        return f"{where}: {self.message}{shown}" if where else f"{self.message}{shown}"


class TransportError(Exception):
    """A connection or a peer failed; the caller decides whether to try again."""


def _short(value: object, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}…"
