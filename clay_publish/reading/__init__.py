"""Finding chips in a published release: by place, by time, and by what they look like."""
