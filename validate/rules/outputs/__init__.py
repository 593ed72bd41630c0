"""Rules on what a release holds beside its embeddings: codes, the explorer, patches and aggregates."""
