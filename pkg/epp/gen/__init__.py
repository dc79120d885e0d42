"""Generated protobuf stubs; see `make generate`."""
