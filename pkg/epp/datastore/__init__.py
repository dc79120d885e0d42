"""The in-memory view of pool, models and endpoints; written by reconcilers only."""
