"""Publish to the Hugging Face Hub."""
