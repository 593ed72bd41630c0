"""Validation rules."""
