"""Read chips and vectors of a release by place, time and similarity."""
