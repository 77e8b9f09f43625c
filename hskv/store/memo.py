"""Computed values: one computation at a time among all processes, the others wait for it."""

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, ParamSpec, Protocol, TypeVar

from ..exceptions import HandlerSocketError
from .expiry import TtlOrDefault
from .lease import Lease
from .mapping import MISSING

_log = logging.getLogger("hskv")

P = ParamSpec("P")
T = TypeVar("T")

_LEASE_TTL_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05
_PLAIN: Final = (str, bytes, int, float, bool, type(None))


class Computing(Protocol):
    """What of a KeyValueStore it takes to compute a value once."""

    key_type: type

    def get(self, key: Any, default: Any = None) -> Any: ...  # noqa: D102 the store says it

    def reading(self, read: Literal["primary", "replica"]) -> "Computing": ...  # noqa: D102 as above

    def set(self, key: Any, value: Any, ttl: Any) -> None: ...  # noqa: D102 the store says it

    def computing(self, key: Any, ttl: float, poll: float) -> Lease: ...  # noqa: D102 as above


def get_or_set(store: Computing, key: Any, factory: Callable[[], T], ttl: TtlOrDefault) -> T:
    """The value of a key; where it is missing, one caller computes it."""
    value = store.get(key, MISSING)
    if value is not MISSING:
        return value  # type: ignore[no-any-return]
    lease = store.computing(key, _LEASE_TTL_SECONDS, _POLL_SECONDS)
    while not lease.acquire(_POLL_SECONDS):
        # Whoever computes it may be done while the next one in turn has the lease already.
        value = store.get(key, MISSING)
        if value is not MISSING:
            return value  # type: ignore[no-any-return]
    try:
        # A replica may not show yet what the last one has computed.
        value = store.reading("primary").get(key, MISSING)
        if value is MISSING:
            value = factory()
            store.set(key, value, ttl)
    finally:
        try:
            lease.release()
        except HandlerSocketError as error:
            # The value is there, or its own error is on its way; the lease ends by itself.
            _log.warning("%r could not be released: %s", lease, error)
    return value  # type: ignore[no-any-return]


def memoize(
    store: Computing,
    ttl: TtlOrDefault,
    key: Callable[..., Any] | None,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator that keeps a function's results in the store."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        name = f"{function.__module__}.{function.__qualname__}"

        def cache_key(*args: P.args, **kwargs: P.kwargs) -> Any:
            if key is not None:
                return key(*args, **kwargs)
            text = f"{name}:{_digest(args, kwargs)}"
            return text if store.key_type is str else text.encode()

        @functools.wraps(function)
        def memoized(*args: P.args, **kwargs: P.kwargs) -> T:
            compute = functools.partial(function, *args, **kwargs)
            return get_or_set(store, cache_key(*args, **kwargs), compute, ttl)

        memoized.cache_key = cache_key  # type: ignore[attr-defined]
        return memoized

    if key is None and store.key_type is int:
        raise TypeError("a store of int keys needs key=, a function of the arguments")
    return decorate


def _digest(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    from hashlib import sha256  # slow to import, and seldom wanted

    text = _canonical((args, dict(kwargs)))
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _canonical(value: Any) -> str:
    """The same text for the same arguments, in every process; no other values give it."""
    kind = type(value)
    if kind in _PLAIN:
        return repr(value)
    if kind in (list, tuple):
        return f"{kind.__name__}({','.join(map(_canonical, value))})"
    if kind is dict:
        items = sorted((_canonical(name), _canonical(item)) for name, item in value.items())
        return f"dict({','.join(f'{name}:{item}' for name, item in items)})"
    if kind in (set, frozenset):
        return f"{kind.__name__}({','.join(sorted(map(_canonical, value)))})"
    raise TypeError(
        f"memoize makes no key of a {kind.__name__}: give key=, a function of the arguments"
    )
