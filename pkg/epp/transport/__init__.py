"""gRPC servers behind one seam; no domain words."""
