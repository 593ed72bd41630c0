"""Tables and documents that other software wrote."""
