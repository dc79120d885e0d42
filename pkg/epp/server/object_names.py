"""Names of Kubernetes objects, checked before the API server is asked about them for ever.

Reference: k8s.io/apimachinery pkg/util/validation (DNS-1123 label and subdomain).
"""

import re

_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_NAMESPACE = re.compile(_LABEL, re.ASCII)
MAX_NAME_LENGTH = 253
MAX_NAMESPACE_LENGTH = 63


def parse_object_name(text: str) -> str:
    """Name of an object. Raises ValueError with half a sentence."""
    if len(text) > MAX_NAME_LENGTH or _SUBDOMAIN.fullmatch(text) is None:
        raise ValueError(
            "is not the name of a Kubernetes object: lower-case letters, digits, '-' and '.', "
            f"a letter or digit around each '.' and at both ends, at most {MAX_NAME_LENGTH}"
        )
    return text


def parse_namespace(text: str) -> str:
    """Name of a namespace. Raises ValueError with half a sentence."""
    if len(text) > MAX_NAMESPACE_LENGTH or _NAMESPACE.fullmatch(text) is None:
        raise ValueError(
            "is not the name of a namespace: lower-case letters, digits and '-', a letter or "
            f"digit at both ends, at most {MAX_NAMESPACE_LENGTH}"
        )
    return text
