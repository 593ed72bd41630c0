"""Embeddings as Zarr arrays, made of the published tables once all of these are there."""
