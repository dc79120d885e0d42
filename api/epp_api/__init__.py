"""Kubernetes and configuration types as frozen structs; imports nothing of ours."""
