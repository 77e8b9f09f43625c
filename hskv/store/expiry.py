"""Seconds to live, and the milliseconds since the epoch that stand in a row."""

import math
from collections.abc import Callable
from datetime import timedelta
from enum import Enum
from typing import Final, Literal

from .table import NEVER

MAX_TTL_SECONDS: Final = 100 * 365.25 * 86400
GRACE_MS: Final = 60_000
"""Rows are removed this long after they expired: other clients' clocks, too, have passed it."""


class Keep(Enum):
    """The type of `KEEP`."""

    KEEP = "KEEP"

    def __repr__(self) -> str:
        return "KEEP"


KEEP: Final = Keep.KEEP
"""As a ttl: a live row expires when it did; a new one has the store's own default_ttl."""


class Default(Enum):
    """The type of `DEFAULT`."""

    DEFAULT = "DEFAULT"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default.DEFAULT
"""As a ttl: the store's own default_ttl."""

Ttl = int | float | timedelta | None
"""Seconds to live, above zero and below a hundred years; None for ever."""
TtlOrDefault = Ttl | Literal[Default.DEFAULT]
TtlOrKeep = TtlOrDefault | Literal[Keep.KEEP]


def checked(ttl: Ttl) -> float | None:
    """The seconds of a ttl. Raises TypeError or ValueError for what is none."""
    if ttl is None:
        return None
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float, timedelta)):
        raise TypeError(f"ttl is seconds, a timedelta or None, not {type(ttl).__name__}")
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else float(ttl)
    if not 0 < seconds < MAX_TTL_SECONDS:
        raise ValueError(f"ttl is above zero and below a hundred years, not {ttl!r}")
    return seconds


def now_ms(clock: Callable[[], float]) -> int:
    """The time now, rounded down: a row is not dead before its time."""
    return int(clock() * 1000)


def expires_ms(clock: Callable[[], float], seconds: float | None) -> int:
    """When a row with so many seconds to live expires, rounded up."""
    if seconds is None:
        return NEVER
    return math.ceil(clock() * 1000) + math.ceil(seconds * 1000)


def not_keep(ttl: TtlOrKeep, what: str) -> TtlOrDefault:
    """The ttl of what has no expiry to keep. Raises ValueError for `KEEP`."""
    if isinstance(ttl, Keep):
        raise ValueError(f"{what} has no expiry to keep: give seconds, None or DEFAULT")
    return ttl
