"""The contract of `torchgeo.datasets.ClayEmbeddings`: geopandas reads the folder, three columns count."""

from typing import Any

import geopandas
import torch


class ClayEmbeddings:
    """Chips of a folder of GeoParquet files."""

    def __init__(self, root: str) -> None:
        self.table = geopandas.read_parquet(root)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.table.iloc[index]
        center = row["geometry"].centroid
        return {
            "embedding": torch.tensor(row["embedding"]),
            "x": torch.tensor(center.x),
            "y": torch.tensor(center.y),
            "t": torch.tensor(row["datetime"].timestamp()),
        }
