"""Stub of `torchgeo.datasets.geo`: a base class without methods, as the real one adds none that is called here."""

from torch.utils.data import Dataset


class NonGeoDataset(Dataset[dict[str, object]]):
    """Base of the embeddings datasets."""
