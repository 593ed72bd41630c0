"""Imagery → embeddings."""
