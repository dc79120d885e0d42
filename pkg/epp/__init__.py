"""Endpoint Picker: chooses the model-server endpoint of every LLM request.

See ``pkg/epp/README.md`` for the tour of the packages and the two walks (a request, a pod event).
"""
