"""Scorers: how good each candidate is."""
