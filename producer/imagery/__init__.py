"""Read pixels: raster files, strips and warps."""
