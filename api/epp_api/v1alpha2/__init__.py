"""API group version inference.networking.x-k8s.io/v1alpha2."""
