"""Encoders: chips in, embeddings out. One small protocol; `load_encoder` picks by the spec."""

from clay_publish.producer.encoders.base import ChipBatch, Encoded, Encoder, load_encoder

__all__ = ["ChipBatch", "Encoded", "Encoder", "load_encoder"]
