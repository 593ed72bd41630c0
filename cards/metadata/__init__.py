"""Machine-readable descriptions: Croissant, DataCite, JSON-LD, CFF."""
