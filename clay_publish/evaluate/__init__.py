"""Compare how well the vectors of releases predict labels: spatially blocked cross-validation with simple models."""
