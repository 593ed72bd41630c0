"""Rules on the images that a release was made of."""
