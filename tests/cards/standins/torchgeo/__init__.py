"""TorchGeo where it cannot be installed: `datasets` runs files of its wheel."""
