"""Request bodies of the APIs that model servers speak: parsing, and rewriting of one field."""
