"""Recompute the chips that a release should hold."""
