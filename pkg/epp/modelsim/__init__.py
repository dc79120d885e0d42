"""A small vLLM-like model server for demos, tests and benches."""
