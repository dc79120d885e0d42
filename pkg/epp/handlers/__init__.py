"""The ext_proc conversation: the only code besides server that sees protobuf."""
