"""Is the pool saturated? Pure."""
