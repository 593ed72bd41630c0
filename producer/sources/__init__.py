"""Source items: read, select and describe them."""
