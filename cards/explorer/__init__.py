"""The explorer: one static page that shows a release, its raster overviews and an index of its files."""
