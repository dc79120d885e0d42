"""The life of a request, without Envoy's types."""
