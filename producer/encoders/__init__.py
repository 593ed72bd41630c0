"""Encoders: chips in, embeddings out. One small protocol; `load_encoder` picks by the spec."""

from clay_publish.producer.encoders.base import Chips, Encoded, Encoder
from clay_publish.producer.encoders.registry import load_encoder

__all__ = ["Chips", "Encoded", "Encoder", "load_encoder"]
