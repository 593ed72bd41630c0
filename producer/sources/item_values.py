"""The items of a table as columns, and as the documents that they are read as."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from clay_publish.producer.sources.equal_rows import Numbers, children_of, numbers_of, numbers_of_column
from clay_publish.producer.sources.reader import present
from clay_publish.producer.sources.watched import Recording

_STATED = "datetime"
"""STAC asks for it: null where an item has none."""


class ItemColumn:
    """What the items of a batch have in one place.

    Args:
        array: one value per item; None for an object that all have.
        children: the members of that object, by name.
        values: one per item, where there is no array of them.
    """

    def __init__(
        self, array: Any = None, *, children: Mapping[str, "ItemColumn"] | None = None, values: list[Any] | None = None
    ) -> None:
        is_coded = array is not None and pa.types.is_dictionary(array.type)
        self.array = array.dictionary_decode() if is_coded else array
        if children is not None:
            self.children = dict(children)
        if values is not None:
            self.values = values

    @cached_property
    def children(self) -> dict[str, "ItemColumn"]:
        """The members of objects, by name."""
        kind = self.array.type
        if len({field.name for field in kind}) < kind.num_fields:
            msg = "an object with two members of one name"
            raise TypeError(msg)
        return {name: ItemColumn(child) for name, child in children_of(self.array).items()}

    @cached_property
    def is_object(self) -> bool:
        """Whether the values are objects with members."""
        return "children" in vars(self) or (self.array is not None and pa.types.is_struct(self.array.type))

    @cached_property
    def values(self) -> list[Any]:
        """The value of each item, as in JSON; None where it has none.

        Raises:
            TypeError: it is of a type that JSON does not have.
        """
        if not _is_json(self.array.type):
            msg = f"values of type {self.array.type}"
            raise TypeError(msg)
        values = self.array.to_pylist()
        return values if _is_flat(self.array.type) else [present(value) for value in values]

    def at(self, row: int) -> Any:
        """The value of one item, without those of the others."""
        return self.values[row] if self.array is None else ItemColumn(self.array[row : row + 1]).values[0]

    def kind(self, row: int) -> type:
        """The class of a value, which all of a column share; `object` where JSON does not have it."""
        return type(self.at(row)) if self.array is None or _is_json(self.array.type) else object

    def share_members(self) -> None:
        """In an object of objects, such as assets: what all items have equal in several of these becomes one column."""
        known: dict[str, list[ItemColumn]] = {}
        for child in self.children.values():
            for name, column in child.children.items() if child.is_object else ():
                others = known.setdefault(name, [])
                same = next((other for other in others if column.array.equals(other.array)), None)
                if same is None:
                    others.append(column)
                else:
                    child.children[name] = same

    @cached_property
    def _has_value(self) -> list[bool]:
        if self.array is None:
            return [value is not None for value in self.values]
        found: list[bool] = self.array.is_valid().to_pylist()
        return found

    @cached_property
    def _all_have(self) -> bool:
        return bool("children" in vars(self) if self.array is None else self.array.null_count == 0)

    def has(self, row: int) -> bool:
        """Whether an item has a value here."""
        return self._all_have or self._has_value[row]

    def equal(self) -> Numbers | None:
        """Equal numbers for items with equal values; None where all are."""
        return numbers_of(map(repr, self.values)) if self.array is None else numbers_of_column(self.array)

    def having(self) -> Numbers | None:
        """Equal numbers for items that both have a value, or both have none; None for all."""
        return None if self._all_have else np.array(self._has_value, dtype=np.int64)

    def derived(self, function: Callable[..., Any], *args: Any) -> Numbers | None:
        """Equal numbers for items for whose values a function gives the same; None where it does for all."""
        known: dict[str | bool, int] = {}

        def numbered(values: Iterable[Any]) -> Iterator[int]:
            for value in values:
                try:
                    result = None if value is None else function(value, *args)
                    answer = result if isinstance(result, bool) else repr(result)
                except Exception:  # noqa: BLE001 - which reading the item by itself will raise
                    answer = f"{len(known)} of those that are like no other"
                yield known.setdefault(answer, len(known))

        if self.array is not None and _is_text(self.array.type):
            different = dict.fromkeys(self.values)
            numbers = dict(zip(different, numbered(different), strict=True))
            found = np.fromiter(map(numbers.__getitem__, self.values), dtype=np.int64, count=len(self.values))
        else:
            found = np.fromiter(numbered(self.values), dtype=np.int64, count=len(self.values))
        return None if len(known) == 1 else found


class _Members(Mapping[str, Any]):
    """An object of one item; a dict for `isinstance`."""

    __slots__ = ("_column", "_row")

    def __init__(self, column: ItemColumn, row: int) -> None:
        self._column, self._row = column, row

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return dict

    @abstractmethod
    def _member(self, child: ItemColumn) -> Any: ...

    def __getitem__(self, key: str) -> Any:
        child = self._column.children[key]
        if child.has(self._row):
            return self._member(child)
        if key == _STATED:
            return None
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        for name, child in self._column.children.items():
            if child.has(self._row) or name == _STATED:
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**other, **self}


class ItemView(_Members):
    """An item of a table, or an object in it."""

    __slots__ = ()

    def _member(self, child: ItemColumn) -> Any:
        return ItemView(child, self._row) if child.is_object else child.values[self._row]

    def get(self, key: str, default: Any = None) -> Any:
        """As of a dict."""
        child = self._column.children.get(key)
        if child is None:
            return default
        if child.is_object:
            return ItemView(child, self._row) if child.has(self._row) else default
        found = child.values[self._row]
        return default if found is None and key != _STATED else found


Question = tuple[str, ItemColumn, tuple[Any, ...]]
"""What was asked of a column: a method of it, and its arguments."""


class Record:
    """What is read of an item."""

    def __init__(self) -> None:
        self._questions: dict[tuple[Any, ...], Question] = {}

    def note(self, method: str, column: ItemColumn, *args: Any) -> None:
        """Add a question."""
        self._questions.setdefault((method, id(column), *map(id, args)), (method, column, args))

    @property
    def questions(self) -> list[Question]:
        """All, each once."""
        return list(self._questions.values())


class WatchedItem(_Members):
    """An item of a table, or an object in it, that records what is read of it."""

    __slots__ = ("_record",)

    def __init__(self, column: ItemColumn, row: int, record: Record) -> None:
        super().__init__(column, row)
        self._record = record

    def _member(self, child: ItemColumn) -> Any:
        kind = WatchedItem if child.is_object else WatchedValue
        return kind(child, self._row, self._record)

    def __getitem__(self, key: str) -> Any:
        if key in self._column.children:
            self._record.note("having", self._column.children[key])
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[str]:
        for child in self._column.children.values():
            self._record.note("having", child)
        return super().__iter__()


def _whole(name: str) -> Any:
    """A special method that reads a watched value as a whole."""

    def method(self: "WatchedValue", *args: Any) -> Any:
        found = self.read()
        others = (other.read() if isinstance(other, WatchedValue) else other for other in args)
        return getattr(found, name)(*others)

    return method


class WatchedValue(Recording):
    """A value of an item that records when it is read; for `isinstance`, of the class of the value.

    What takes text and no such value, as `re` does, raises TypeError: nothing is read without a record.
    """

    __slots__ = ("_column", "_record", "_row")

    def __init__(self, column: ItemColumn, row: int, record: Record) -> None:
        self._column, self._row, self._record = column, row, record

    def read(self) -> Any:
        """The value itself."""
        found = self._column.at(self._row)
        self._record.note("equal", self._column)
        return found

    def derive(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return `function(value, *args)`, and record this result instead of the value."""
        value = self._column.at(self._row)
        self._record.note("derived", self._column, function, *args)
        return function(value, *args)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self._column.kind(self._row)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.read(), name)

    def __str__(self) -> str:
        return str(self.read())

    def __repr__(self) -> str:
        return repr(self.read())

    def __format__(self, spec: str) -> str:
        return format(self.read(), spec)

    def __bool__(self) -> bool:
        return bool(self.read())

    def __hash__(self) -> int:
        return hash(self.read())

    def __float__(self) -> float:
        return float(self.read())

    def __int__(self) -> int:
        return int(self.read())

    __eq__, __ne__, __lt__, __le__, __gt__, __ge__ = map(
        _whole, ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")
    )
    __len__, __iter__, __contains__, __getitem__ = map(_whole, ("__len__", "__iter__", "__contains__", "__getitem__"))


def _is_flat(kind: pa.DataType) -> bool:
    """Whether values are text, numbers, booleans or lists of these."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_flat(kind.value_type)
    plain = (pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, pa.types.is_float32, pa.types.is_float64)
    return _is_text(kind) or any(is_kind(kind) for is_kind in plain)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_json(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_json(kind.value_type)
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        return len(set(names)) == len(names) and all(_is_json(field.type) for field in kind)
    return _is_flat(kind)
