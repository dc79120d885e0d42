"""Options, listening servers and health."""
