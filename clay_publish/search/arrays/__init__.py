"""The arrays of a release, and its tables by the cells of the grid."""
