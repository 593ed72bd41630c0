"""The chip grid, areas, footprints and land outlines."""
