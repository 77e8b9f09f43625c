"""A slow function behind a dogpile.cache region, asked for by many threads of many processes."""

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from typing import Any, Final

from dogpile.cache import make_region
from dogpile.cache.region import CacheRegion
from rich.console import Console

from hskv import KeyValueStore
from hskv.integrations.dogpile import HandlerSocketInvalidator

from .workers import CONTEXT, DemoError, submit, worker_pool

PROCESSES: Final = 4
THREADS: Final = 20
SLOW_SECONDS: Final = 0.5
# How long a process may go on with what it knows of the last invalidation.
MAX_AGE_SECONDS: Final = 0.2
LONGEST_WAIT_SECONDS: Final = 30.0

Answers = Counter[str]

# Each worker process has its own.
_region: CacheRegion
_counters: KeyValueStore[str, Any]
_barrier: Barrier


def make(url: str) -> CacheRegion:
    """A region on the demo's table, with locks and invalidation that all processes share."""
    region = make_region()
    return region.configure(
        "hskv",
        expiration_time=60,
        arguments={"url": url, "distributed_lock": True, "lock_sleep": 0.02},
        region_invalidator=HandlerSocketInvalidator(region, max_age=MAX_AGE_SECONDS),
    )


def begin(url: str, barrier: Barrier) -> None:
    """What each worker does first."""
    global _region, _counters, _barrier
    _region, _counters, _barrier = make(url), KeyValueStore(url), barrier


def make_report() -> str:
    """The slow function."""
    time.sleep(SLOW_SECONDS)
    return f"report {_counters.incr('reports made')}, by process {os.getpid()}"


def stampede(_: int) -> Answers:
    """Ask in many threads at once, when all processes are ready."""
    _barrier.wait(LONGEST_WAIT_SECONDS)
    with ThreadPoolExecutor(THREADS) as threads:
        asked = [
            threads.submit(_region.get_or_create, "report", make_report) for _ in range(THREADS)
        ]
        return Counter(str(future.result()) for future in asked)


def show_region(console: Console, url: str) -> None:
    """A stampede, an invalidation by another process, and a second stampede."""
    console.print(
        "\n[bold]5. A slow function behind a dogpile.cache region.[/]\n"
        f"  {PROCESSES} processes with {THREADS} threads each ask for the same report at once.\n"
        f"  Making it takes {SLOW_SECONDS} s."
    )
    with worker_pool(PROCESSES, begin, url, CONTEXT.Barrier(PROCESSES)) as pool:
        for turn in (1, 2):
            started = time.perf_counter()
            counted = submit(pool, stampede, [(number,) for number in range(PROCESSES)])
            answers: Answers = sum((each.result() for each in counted), Counter())
            seconds = time.perf_counter() - started
            check(turn, url, answers)
            ((answer, times),) = answers.items()
            console.print(f"  {times} answers after {seconds:.1f} s, all of them: {answer!r}")
            if turn == 1:
                make(url).invalidate()  # type: ignore[no-untyped-call]
                console.print("  This process calls region.invalidate(); they ask again:")
                # Until then they may take the last invalidation as the one they know.
                time.sleep(MAX_AGE_SECONDS)


def check(turn: int, url: str, answers: Answers) -> None:
    """One report a turn, and everybody has it."""
    with KeyValueStore[str, Any](url) as store:
        made = store["reports made"]
    if made != turn or len(answers) != 1 or answers.total() != PROCESSES * THREADS:
        raise DemoError(f"the report was made {made} times, and the answers were {answers}")
