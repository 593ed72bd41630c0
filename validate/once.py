"""What is read once, whether it can be read or not."""

from functools import cached_property
from typing import Any, TypeVar, overload

from clay_publish.errors import ClayPublishError

T = TypeVar("T")


class once(cached_property[T]):  # noqa: N801 - as the one it follows
    """As cached_property, and an error is remembered too: a document that takes long to refuse is refused once."""

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> "once[T]": ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> T: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> "once[T] | T":
        if instance is None:
            return self
        failures: dict[str, ClayPublishError] = instance.__dict__.setdefault("_failures", {})
        name = str(self.attrname)
        if name in failures:
            raise failures[name].with_traceback(None)
        try:
            value: Any = super().__get__(instance, owner)
        except ClayPublishError as error:
            failures[name] = error
            raise
        return value  # type: ignore[no-any-return]
