"""Request and response bodies of the APIs that model servers speak."""
