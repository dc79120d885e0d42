"""Envoy bootstrap and supervision for running without a gateway of your own."""
