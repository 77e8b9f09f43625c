"""The face of a dict, over a few primitives that a store provides."""

from abc import abstractmethod
from collections.abc import ItemsView, Iterable, Iterator, Mapping, MutableMapping, ValuesView
from enum import Enum
from typing import Any, Final, Literal, Protocol, TypeVar, cast, overload

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")
V_co = TypeVar("V_co", covariant=True)


class Missing(Enum):
    """The type of `MISSING`, which no stored value can be."""

    MISSING = "MISSING"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING


class SupportsKeys(Protocol[K, V_co]):
    """What `dict.update` takes for a mapping."""

    def keys(self) -> Iterable[K]: ...  # noqa: D102 dict's own

    def __getitem__(self, key: K, /) -> V_co: ...


class TableMapping(MutableMapping[K, V]):
    """A MutableMapping whose items live in a table: iteration pages through it in key order.

    It behaves as dict does, but for order: by key, not by insertion. `dict(store.items())`
    copies it page by page; `dict(store)` asks for each value alone.
    """

    @abstractmethod
    def get(self, key: K, default: Any = None) -> Any:
        """The value of a key, else the default."""

    @abstractmethod
    def set(self, key: K, value: V) -> None:
        """Store a value."""

    @abstractmethod
    def delete(self, key: K) -> bool:
        """Remove a key; True if it was there."""

    @abstractmethod
    def set_many(self, items: Mapping[K, V]) -> None:
        """Store many values."""

    @abstractmethod
    def _take(self, key: K) -> V | Literal[Missing.MISSING]:
        """Remove a key and give its value."""

    @abstractmethod
    def _take_first(self) -> tuple[K, V] | None:
        """Remove the first item in key order and give it."""

    @abstractmethod
    def _key_pages(self, rows: int) -> Iterator[list[K]]:
        """All keys in order, at most so many rows at a time."""

    @abstractmethod
    def _items(self) -> Iterator[tuple[K, V]]:
        """All items in key order."""

    def __getitem__(self, key: K) -> V:
        value: V | Literal[Missing.MISSING] = self.get(key, MISSING)
        if value is MISSING:
            raise KeyError(key)
        return value

    def __setitem__(self, key: K, value: V) -> None:
        self.set(key, value)

    def __delitem__(self, key: K) -> None:
        if not self.delete(key):
            raise KeyError(key)

    def __iter__(self) -> Iterator[K]:
        for page in self._key_pages(_PAGE_ROWS):
            yield from page

    def __len__(self) -> int:
        return sum(map(len, self._key_pages(_PAGE_ROWS)))

    def __bool__(self) -> bool:
        return any(self._key_pages(1))

    @overload
    def pop(self, key: K, /) -> V: ...
    @overload
    def pop(self, key: K, /, default: V | T) -> V | T: ...
    def pop(self, key: K, /, default: Any = MISSING) -> Any:
        """Remove a key and give its value, else the default, else KeyError.

        Atomic: of several clients one gets the value. One round trip.

        >>> store["a"] = 1
        >>> store.pop("a"), store.pop("a", None)
        (1, None)
        """
        value = self._take(key)
        if value is not MISSING:
            return value
        if default is MISSING:
            raise KeyError(key)
        return default

    def to_dict(self) -> dict[K, V]:
        """A copy of all items, read page by page, while others may write.

        >>> store.set_many({"b": 2, "a": 1})
        >>> store.to_dict()
        {'a': 1, 'b': 2}
        """
        return dict(self._items())

    def popitem(self) -> tuple[K, V]:
        """Remove the first item in key order and give it; KeyError when there is none.

        Atomic: of several clients one gets the item. One round trip.

        >>> store.set_many({"job:2": "b", "job:1": "a"})
        >>> store.popitem()
        ('job:1', 'a')
        """
        item = self._take_first()
        if item is None:
            raise KeyError("popitem(): the store is empty")
        return item

    def update(self, other: SupportsKeys[K, V] | Iterable[tuple[K, V]] = (), /, **items: V) -> None:
        """Store many values, as `set_many` does; not atomic as a whole.

        >>> store.update({"a": 1}, b=2)
        >>> len(store)
        2
        """
        # Page by page: dict() would ask another store for each value alone.
        pairs = other.items() if isinstance(other, TableMapping) else other
        self.set_many({**dict(pairs), **cast(dict[K, V], items)})

    def items(self) -> ItemsView[K, V]:
        """A view of (key, value) pairs; iteration reads page by page.

        >>> store.update(b=2, a=1)
        >>> list(store.items())
        [('a', 1), ('b', 2)]
        """
        return _Items(self)

    def values(self) -> ValuesView[V]:
        """A view of the values; iteration reads page by page.

        >>> store.update(b=2, a=1)
        >>> sum(store.values())
        3
        """
        return _Values(self)


_PAGE_ROWS: Final = 1000


class _Items(ItemsView[K, V]):
    _mapping: TableMapping[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return self._mapping._items()


class _Values(ValuesView[V]):
    _mapping: TableMapping[Any, V]

    def __iter__(self) -> Iterator[V]:
        for _, value in self._mapping._items():
            yield value

    def __contains__(self, value: object) -> bool:
        return any(item is value or item == value for item in self)
