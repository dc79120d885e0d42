"""API version v1alpha2 of inference.networking.x-k8s.io, and of llm-d.ai, which took kinds over."""
