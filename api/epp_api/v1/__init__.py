"""API group version inference.networking.k8s.io/v1."""
