"""Figures of the dataset card."""
