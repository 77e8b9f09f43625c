"""Instructions of the client for each call, without those of the kernel, counted by valgrind.

    python -m benchmarks.instructions

They do not vary as times do. Each operation runs in processes of its own, on a real server: one
that calls it so many times, and one that calls it twice as often; the difference is what counts.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

import hskv
from hskv import Client, KeyValueStore
from hskv.mariadb import PrivateServer

ITEMS: Final = {f"key:{number:05}": "value" for number in range(100)}
# The index is open and what is kept for the next call is there.
WARM_UP: Final = 20

Store = KeyValueStore[str, Any]


def _find(store: Store) -> Callable[[], object]:
    client: Client = store.client
    index = hskv.Index("hskv", "kv", "PRIMARY", ("k", "v"))
    return lambda: client.find(index, "=", ["key:00001"])


CALLS: Final[dict[str, tuple[int, Callable[[Store], Callable[[], object]]]]] = {
    "Client.find": (200, _find),
    "store.get": (200, lambda store: lambda: store.get("key:00001")),
    "store.set": (200, lambda store: lambda: store.set("key:00002", "value")),
    "store.incr": (200, lambda store: lambda: store.incr("counter")),
    "get_many(100)": (20, lambda store: lambda: store.get_many(list(ITEMS))),
    "set_many(100)": (20, lambda store: lambda: store.set_many(ITEMS)),
}


def call(name: str, times: int) -> None:
    """What is counted: one operation, so many times after the first ones."""
    with hskv.connect(os.environ["HSKV_URL"], timeout=60, cull=False) as store:
        operation = CALLS[name][1](store)
        for _ in range(WARM_UP + times):
            operation()


def instructions(name: str, times: int, codec: str, url: str) -> int:
    """Those of a whole process."""
    program = [sys.executable, "-m", "benchmarks.instructions", name, str(times)]
    done = subprocess.run(
        [
            "valgrind",
            "--tool=cachegrind",
            "--cache-sim=no",
            "--cachegrind-out-file=/dev/null",
            *program,
        ],
        env={**os.environ, "HSKV_URL": url, "HSKV_IMPL": codec, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    found = re.search(r"I +refs: +([\d,]+)", done.stderr)
    if done.returncode or not found:
        raise SystemExit(f"valgrind failed: {done.stderr}")
    return int(found[1].replace(",", ""))


def per_call(name: str, codec: str, url: str) -> float:
    """Instructions of one call."""
    times = CALLS[name][0]
    once, twice = (instructions(name, times * turns, codec, url) for turns in (1, 2))
    return (twice - once) / times


def main() -> None:
    """Count and print every operation, by both codecs."""
    print(f"{'':16}{'hskv_fast':>14}{'pure Python':>14}")
    with PrivateServer() as server:
        with hskv.connect(server.url) as store:
            store.set_many(ITEMS)
        for name in CALLS:
            counts = [per_call(name, codec, server.url) for codec in ("cython", "python")]
            print(f"{name:16}" + "".join(f"{count:14,.0f}" for count in counts), flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        call(sys.argv[1], int(sys.argv[2]))
    else:
        main()
