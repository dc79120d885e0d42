"""The descriptor pool of the generated modules: Envoy's names, and no clash with anybody else's."""

from google.protobuf.descriptor_pool import DescriptorPool

_POOL = DescriptorPool()


def Default() -> DescriptorPool:  # noqa: N802 - the name that protoc's output calls
    """Return the pool; generated modules call this in place of protobuf's own function."""
    return _POOL
