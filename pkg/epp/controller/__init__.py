"""One thin, level-based reconciler per kind."""
