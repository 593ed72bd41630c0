"""Publish to S3-compatible object stores."""
