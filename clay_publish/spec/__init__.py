"""The release spec: models, loading and sensors."""
