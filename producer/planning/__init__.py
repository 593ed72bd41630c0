"""Split a run into units and estimate its cost."""
