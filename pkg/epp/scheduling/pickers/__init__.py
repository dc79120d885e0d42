"""Pickers: which candidate it is."""
