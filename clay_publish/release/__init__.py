"""The release format: directory, tables, metadata and manifest."""
