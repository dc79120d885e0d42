"""Builders and fakes that tests share; shipped and typed."""
