"""A report that takes a second to make, cached for all processes by a region of dogpile.cache."""

import os
import time
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, cast

from dogpile.cache import make_region

from hskv import KeyValueStore

COST_SECONDS: Final = 1.0
FRESH_SECONDS: Final = 60.0
_KEY: Final = "report"


class Report(NamedTuple):
    """What the page shows of it."""

    clicks: int
    visitors: int
    made: str
    process: int


class Reports:
    """Makes one when the last is too old, in one process at a time; the others wait for it."""

    def __init__(self, url: str | None, store: KeyValueStore[str, Any]) -> None:
        self._store = store
        arguments = {
            "url": url,
            "prefix": "web:page:",
            "hskv_expiration_time": 10 * FRESH_SECONDS,
            "distributed_lock": True,
            "lock_timeout": 10 * COST_SECONDS,
            "lock_sleep": 0.05,
        }
        self._region = make_region().configure(
            "hskv", expiration_time=FRESH_SECONDS, arguments=arguments
        )

    def get(self) -> Report:
        """The report. One round trip, unless it must be made."""
        cells = self._region.get_or_create(_KEY, self._make)
        return Report(*cast(list[Any], cells))

    def forget(self) -> None:
        """Have the next one who asks make it anew."""
        self._region.delete(_KEY)

    def _make(self) -> list[Any]:
        # In the place of queries that take long.
        time.sleep(COST_SECONDS)
        now = datetime.now(UTC).strftime("%H:%M:%S UTC")
        visitors = len(self._store.namespace("session:"))
        return list(Report(self._store.get("count", 0), visitors, now, os.getpid()))
