"""Chip layouts: scene and utm."""
