"""Rules that follow."""
