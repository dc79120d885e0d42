"""Every Prometheus instrument."""
