"""A rate limit that many processes share."""

import time
from collections import Counter
from typing import Any, Final

from rich.console import Console

from hskv import KeyValueStore, RateLimiter

from .workers import DemoError, submit, worker_pool

PROCESSES: Final = 8
HITS: Final = 10_000
LIMIT: Final = 1_000
# So long that none comes free while the demo runs.
PERIOD_SECONDS: Final = 86_400

# Each worker process has its own.
_limiter: RateLimiter


def begin(url: str) -> None:
    """What each worker does first."""
    global _limiter
    store: KeyValueStore[str, Any] = KeyValueStore(url)
    _limiter = store.limiter("demo", LIMIT, PERIOD_SECONDS, strategy="gcra")


def hit(times: int) -> Counter[bool]:
    """Hit so often; how many were allowed, and how many not."""
    return Counter(_limiter.hit("one and the same client").allowed for _ in range(times))


def show_limiter(console: Console, url: str) -> None:
    """Count what passes."""
    console.print(
        "\n[bold]6. A rate limit that all processes share.[/]\n"
        f"  {PROCESSES} processes hit {HITS:,} times in all; {LIMIT:,} a day are allowed."
    )
    started = time.perf_counter()
    with worker_pool(PROCESSES, begin, url) as pool:
        counted = submit(pool, hit, [(HITS // PROCESSES,)] * PROCESSES)
        results = [each.result() for each in counted]
    seconds = time.perf_counter() - started
    allowed, refused = (sum(result[side] for result in results) for side in (True, False))
    console.print(f"  {allowed:,} passed, {refused:,} were refused, in {seconds:.1f} s.")
    if (allowed, refused) != (LIMIT, HITS - LIMIT):
        raise DemoError(f"{allowed} hits passed, not {LIMIT}")
