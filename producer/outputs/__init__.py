"""Output tables of a run: embeddings, coverage, patches, aggregates."""
