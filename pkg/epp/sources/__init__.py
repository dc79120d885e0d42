"""Where objects come from: a directory of manifests (the Kubernetes API is next)."""
