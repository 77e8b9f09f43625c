"""Processes that count and write, and one that reads from all servers, while servers die."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from typing import Any, Final

import hskv
from examples.demo.workers import CONTEXT, submit, worker_pool
from hskv import KeyValueStore
from hskv.exceptions import HandlerSocketError, OutcomeUnknownError

Store = KeyValueStore[str, Any]

TIMEOUT_SECONDS: Final = 2.0
KEYS: Final = 500

# Each worker process has its own.
_store: Store
_stop: Event
_written: Any


@dataclass
class Told:
    """What a process was told of its writes."""

    counted: int = 0
    perhaps_counted: int = 0
    last: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    failed: int = 0
    longest_gap: float = 0.0


def begin(url: str, stop: Event, written: Any) -> None:
    """Give this process its store."""
    global _store, _stop, _written
    _store, _stop, _written = hskv.connect(url, timeout=TIMEOUT_SECONDS), stop, written


def write_until_stopped(number: int) -> Told:
    """Count, and write one's own keys, in turns."""
    told, serial, last = Told(), 0, time.monotonic()
    while not _stop.is_set():
        serial += 1
        try:
            one_turn(told, f"{number}:{serial % KEYS}", serial)
        except HandlerSocketError:
            told.failed += 1
            continue
        told.acknowledged += 1
        _written[number] = told.acknowledged
        now = time.monotonic()
        told.longest_gap, last = max(told.longest_gap, now - last), now
    return told


def one_turn(told: Told, key: str, serial: int) -> None:
    """An increment of what all count, or a value of one's own; what is unknown is noted."""
    try:
        if serial % 2:
            _store.incr("count")
            told.counted += 1
        else:
            _store.set(key, serial)
            told.last[key] = serial
            told.unknown.pop(key, None)
    except OutcomeUnknownError:
        if serial % 2:
            told.perhaps_counted += 1
        else:
            told.unknown[key] = serial
        raise


class Reader(threading.Thread):
    """Reads from all servers in turn, and knows for how long it could not."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._store: Store = hskv.connect(url, read="replica", timeout=TIMEOUT_SECONDS)
        self._ended = threading.Event()
        self.reads, self.errors, self.longest_gap = 0, 0, 0.0

    def run(self) -> None:
        """Read until it is ended."""
        last = time.monotonic()
        while not self._ended.is_set():
            try:
                self._store.get("count")
            except HandlerSocketError:
                self.errors += 1
                continue
            now = time.monotonic()
            self.longest_gap, last = max(self.longest_gap, now - last), now
            self.reads += 1

    def end(self) -> None:
        """End it."""
        self._ended.set()
        self.join()
        self._store.close()


class Load:
    """The processes at work, and the reader."""

    def __init__(self, url: str, written: Any) -> None:
        self.reader = Reader(url)
        self.told: list[Told] = []
        self._written = written

    @property
    def acknowledged(self) -> int:
        """How many writes were, so far."""
        return sum(self._written)

    def wait_for(self, more: int, seconds: float = 30.0) -> None:
        """Wait until each process was told of so many more. Raises TimeoutError."""
        wanted = [count + more for count in self._written]
        deadline = time.monotonic() + seconds
        while any(count < least for count, least in zip(self._written, wanted, strict=True)):
            if time.monotonic() > deadline:
                raise TimeoutError("the processes do not write any more")
            time.sleep(0.01)


@contextmanager
def at_work(url: str, processes: int) -> Iterator[Load]:
    """So many processes write meanwhile; what they were told is there afterwards."""
    stop, written = CONTEXT.Event(), CONTEXT.Array("q", processes)
    load = Load(url, written)
    with worker_pool(processes, begin, url, stop, written) as pool:
        working: list[Future[Told]] = submit(
            pool, write_until_stopped, [(number,) for number in range(processes)]
        )
        try:
            load.wait_for(1)
            load.reader.start()
            yield load
        finally:
            stop.set()
        load.told = [future.result(30) for future in working]
        load.reader.end()
