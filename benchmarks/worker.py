"""A process that is one client and measures what it is told, a line of JSON at a time.

In a process of its own each client has its own memory, its own CPU time, and the codec that it is
to be measured with.
"""

import itertools
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.contenders import CONTENDERS, VALUE, Place

Action = Callable[[], object]

KEYS = [f"key:{number:05}" for number in range(2_000)]
BATCH = KEYS[:100]
LARGE: dict[str, Any] = {
    "10 KB text": "0123456789" * 1_000,
    "10 KB random": random.Random(1).randbytes(10_000),
    "1 MB text": "0123456789" * 100_000,
    "1 MB random": random.Random(2).randbytes(1_000_000),
}
FIND_ONLY = ("get",)


class Worker:
    """One client, or one for each thread where threads cannot share it."""

    def __init__(self, name: str, place: Place) -> None:
        self.name = name
        self._place = place
        self._client = CONTENDERS[name](place)
        self._new = itertools.count()

    def answer(self, request: Any) -> Any:
        """Do what is asked for."""
        return self.load() if request == "load" else self.measure(**request)

    def load(self) -> str:
        """The rows that are read, written by the one client of each server that is told to."""
        items = dict.fromkeys(KEYS, VALUE)
        for start in range(0, len(KEYS), 500):
            part = KEYS[start : start + 500]
            self._client.set_many({key: items[key] for key in part})
        for name, value in LARGE.items():
            self._client.set(f"large:{name.replace(' ', '-')}", value)
        # memcached counts only what is there.
        self._client.set("counter", 0 if self.name.startswith("hskv") else "0")
        return "loaded"

    def action(self, operation: str, calls: int, client: Any) -> Action:
        """What is called so often; all it needs is made here."""
        what, _, kind = operation.partition(", ")
        if kind in LARGE:
            key = f"large:{kind.replace(' ', '-')}"
            if what == "get":
                return lambda: client.get(key)
            return lambda: client.set(f"{key}:set", LARGE[kind])
        if operation == "get":
            key, turn = "", itertools.cycle(KEYS).__next__
            return lambda: client.get(turn())
        if operation == "set":
            return lambda: client.set("key:00007", VALUE)
        if operation == "incr":
            return lambda: client.incr("counter")
        if operation == "get_many(100)":
            return lambda: client.get_many(BATCH)
        if operation == "set_many(100), existing":
            items = dict.fromkeys(BATCH, VALUE)
            return lambda: client.set_many(items)
        prefix = f"new:{os.getpid()}:{next(self._new)}"
        batches = [
            {f"{prefix}:{batch}:{number}": VALUE for number in range(100)} for batch in range(calls)
        ]
        if hasattr(client, "prepare"):
            client.prepare(batches)
        fresh = iter(batches).__next__
        return lambda: client.set_many(fresh())

    def measure(self, operation: str, calls: int, threads: int = 1) -> dict[str, float]:
        """Microseconds a call, by the clock and of CPU of this process."""
        if threads > 1:
            return self._in_threads(operation, calls, threads)
        action = self.action(operation, calls, self._client)
        if not operation.endswith("new"):
            action()
        cpu, began = time.process_time(), time.perf_counter()
        for _ in range(calls):
            action()
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        return {"wall": wall / calls * 1e6, "cpu": cpu / calls * 1e6}

    def _in_threads(self, operation: str, calls: int, threads: int) -> dict[str, float]:
        shared = self.name.startswith(("hskv", "redis", "pymemcache Pooled"))
        clients = [
            self._client if shared else CONTENDERS[self.name](self._place) for _ in range(threads)
        ]
        actions = [self.action(operation, calls, client) for client in clients]
        start, each = threading.Barrier(threads + 1), max(calls // threads, 1)

        def run(action: Action) -> None:
            action()
            start.wait(30)
            for _ in range(each):
                action()

        running = [threading.Thread(target=run, args=(action,)) for action in actions]
        for thread in running:
            thread.start()
        start.wait(30)
        cpu, began = time.process_time(), time.perf_counter()
        for thread in running:
            thread.join()
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        return {"wall": wall / (each * threads) * 1e6, "cpu": cpu / (each * threads) * 1e6}


def main() -> None:
    """Serve requests from standard input until it ends."""
    worker = Worker(sys.argv[1], Place(**json.loads(sys.argv[2])))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(worker.answer(request)), flush=True)


if __name__ == "__main__":
    main()
