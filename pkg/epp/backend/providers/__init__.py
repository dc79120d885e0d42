"""Metric mapping of each engine, as data."""
