"""The Embedding Release extension for pystac: `EmbeddingReleaseExtension.ext(collection).fingerprint`."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pystac
from pystac.extensions.base import ExtensionManagementMixin, PropertiesExtension

from clay_publish.release.metadata import SCHEMA_URI

FINGERPRINT = "embrel:fingerprint"
DECIDED_BY = "embrel:decided_by"
POOLING = "embrel:pooling"
LOSS = "embrel:loss"
COVERAGE = "embrel:coverage"


@dataclass(frozen=True)
class Coverage:
    """Chips that were expected, those that are there, and why the others are not."""

    expected: int
    embedded: int
    missing: dict[str, int] = field(default_factory=dict)
    """Reason → chips."""
    not_cloud_checked: int = 0
    """Embedded chips whose images have no cloud mask, of a sensor that has masks."""

    @property
    def share(self) -> float:
        """Embedded chips of the expected ones, 0 to 1."""
        return self.embedded / self.expected if self.expected else 0.0


@dataclass(frozen=True)
class Loss:
    """The reconstruction loss of each chip."""

    column: str
    """Of the embeddings files."""
    description: str


class EmbeddingReleaseExtension(
    PropertiesExtension,
    ExtensionManagementMixin[pystac.Collection | pystac.Item],
):
    """A Collection that is a release of embeddings, or an Item that is one of its files.

    Make one with `ext`. The community's `emb:` fields are read beside our own.
    """

    name: Literal["embrel"] = "embrel"

    def __init__(self, obj: pystac.Collection | pystac.Item) -> None:
        self.obj = obj
        self.properties = obj.properties if isinstance(obj, pystac.Item) else obj.extra_fields

    def __repr__(self) -> str:
        return f"<EmbeddingReleaseExtension {type(self.obj).__name__} id={self.obj.id}>"

    @classmethod
    def get_schema_uri(cls) -> str:
        """The schema's address."""
        return SCHEMA_URI

    @classmethod
    def ext(cls, obj: pystac.Collection | pystac.Item, add_if_missing: bool = False) -> "EmbeddingReleaseExtension":
        """Read and write this extension's fields of an object.

        Raises:
            pystac.ExtensionTypeError: neither a Collection nor an Item.
            pystac.ExtensionNotImplemented: the object does not declare the extension, and `add_if_missing` is false.
        """
        if not isinstance(obj, pystac.Collection | pystac.Item):
            raise pystac.ExtensionTypeError(cls._ext_error_message(obj))
        cls.ensure_has_extension(obj, add_if_missing)
        return cls(obj)

    def apply(
        self,
        fingerprint: str,
        coverage: Coverage,
        *,
        pooling: str | None = None,
        decided_by: dict[str, Any] | None = None,
        loss: Loss | None = None,
    ) -> None:
        """Set the fields; a Collection needs `pooling` and `decided_by` too."""
        self.fingerprint, self.coverage = fingerprint, coverage
        self.pooling, self.decided_by, self.loss = pooling, decided_by, loss

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides a vector: two releases with the same one may be compared."""
        return str(self._required(FINGERPRINT, str))

    @fingerprint.setter
    def fingerprint(self, value: str) -> None:
        self._set_property(FINGERPRINT, value, pop_if_none=False)

    @property
    def decided_by(self) -> dict[str, Any] | None:
        """What the fingerprint is over: encoder, weights, bands, layout, precision. Of a Collection."""
        return self._get_property(DECIDED_BY, dict)

    @decided_by.setter
    def decided_by(self, value: dict[str, Any] | None) -> None:
        self._set_property(DECIDED_BY, value)

    @property
    def pooling(self) -> str | None:
        """How a chip becomes one vector. Of a Collection."""
        return self._get_property(POOLING, str)

    @pooling.setter
    def pooling(self, value: str | None) -> None:
        self._set_property(POOLING, value)

    @property
    def loss(self) -> Loss | None:
        """The column of losses, where there is one. Of a Collection."""
        value = self._get_property(LOSS, dict)
        return None if value is None else Loss(**value)

    @loss.setter
    def loss(self, value: Loss | None) -> None:
        self._set_property(LOSS, None if value is None else asdict(value))

    @property
    def coverage(self) -> Coverage:
        """Of the whole release, or of one file."""
        return Coverage(**self._required(COVERAGE, dict))

    @coverage.setter
    def coverage(self, value: Coverage) -> None:
        self._set_property(COVERAGE, asdict(value), pop_if_none=False)

    @property
    def dimensions(self) -> int | None:
        """`emb:dimensions` of a Collection."""
        return self._get_property("emb:dimensions", int)

    @property
    def chip_layout(self) -> dict[str, Any] | None:
        """`emb:chip_layout` of a Collection."""
        return self._get_property("emb:chip_layout", dict)

    @property
    def quantization(self) -> dict[str, Any] | None:
        """`emb:quantization` of an Item; None: values are stored as the model gave them."""
        return self._get_property("emb:quantization", dict)

    def _required(self, name: str, kind: type[Any]) -> Any:
        value = self._get_property(name, kind)
        if value is None:
            raise pystac.RequiredPropertyMissing(self.obj, name)
        return value
