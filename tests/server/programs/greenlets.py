"""Greenlets on one store: `greenlets.py SCENARIO URL PID`, with the server's PID.

Prints as JSON what they saw; the tests judge it.
"""

from gevent import monkey  # type: ignore[import-untyped]

monkey.patch_all()

# Programs patch before they import what is to be patched.
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import contextmanager, suppress  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402

import hskv  # noqa: E402
from hskv import KeyValueStore  # noqa: E402

Store = KeyValueStore[str, Any]

TICK_SECONDS = 0.01


def main() -> None:
    scenario, url, pid = sys.argv[1:]
    # The test waits longer than this: what is still at work then, says where.
    with gevent.Timeout(20):
        print(json.dumps(SCENARIOS[scenario](url, int(pid))))


def eventually(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.001)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """No thread of the server does anything meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        stats = [task / "stat" for task in Path(f"/proc/{pid}/task").iterdir()]
        eventually(lambda: {s.read_text().rpartition(") ")[2][0] for s in stats} == {"T"})
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def outcome(call: Callable[[], Any]) -> Any:
    """What a call gives, or the name of what it raises."""
    try:
        return call()
    except (hskv.HandlerSocketError, gevent.Timeout) as error:
        return type(error).__name__


def gather(calls: list[Callable[[], Any]]) -> list[Any]:
    """The outcomes of calls made by a greenlet each, all at once."""
    greenlets = [gevent.spawn(outcome, call) for call in calls]
    gevent.joinall(greenlets)
    return [greenlet.get() for greenlet in greenlets]


@contextmanager
def ticking() -> Iterator[list[float]]:
    """Gives a list that takes, at the end, the longest pause between two ticks meanwhile."""
    gaps: list[float] = []
    longest: list[float] = []

    def tick() -> None:
        while True:
            before = time.monotonic()
            gevent.sleep(TICK_SECONDS)
            gaps.append(time.monotonic() - before)

    ticker = gevent.spawn(tick)
    gevent.sleep(0)
    yield longest
    gevent.sleep(2 * TICK_SECONDS)
    ticker.kill()
    longest.append(max(gaps))


def crowd(store: Store, pid: int) -> list[str]:
    """Open four channels to each port; the keys of four of the items it stores."""
    keys = [f"key{number}" for number in range(4)]
    store.clear()
    store.set_many({key: f"value of {key}" for key in (*keys, "parent", "child")})
    with frozen(pid):
        calls = [partial(store.get, key) for key in keys]
        calls += [partial(store.touch, key) for key in keys]
        greenlets = [gevent.spawn(call) for call in calls]
        sides = store.client.stats
        eventually(lambda: {(s["size"], s["idle"]) for s in sides().values()} == {(4, 0)})
    gevent.joinall(greenlets, raise_error=True)
    return keys


def share(url: str, pid: int) -> dict[str, Any]:
    wrong: list[str] = []
    counted: list[int] = []

    def work(number: int) -> None:
        for turn in range(10):
            key = f"{number}:{turn}"
            value = f"{key} " * (1, 100, 6_000)[turn % 3]
            store[key] = value
            if store[key] != value or store.get(f"missing {key}", key) != key:
                wrong.append(key)
            counted.append(store.incr("n"))

    with hskv.connect(url, pool_size=4) as store:
        store.clear()
        gevent.joinall([gevent.spawn(work, number) for number in range(50)], raise_error=True)
        return {"wrong": wrong, "counted": counted, "n": store["n"], **store.client.stats()}


def time_out(url: str, pid: int) -> dict[str, Any]:
    with hskv.connect(url, pool_size=4, pool_timeout=0.3, timeout=0.6) as store:
        keys = crowd(store, pid)
        with frozen(pid), ticking() as longest_pause:
            started = time.monotonic()
            reads = gather([partial(store.get, "key0")] * 8)
            seconds = time.monotonic() - started
        with frozen(pid), ticking() as longest_pause_2:
            writes = gather([partial(store.incr, "n")] * 8)
        return {
            "reads": reads,
            "writes": writes,
            "seconds": seconds,
            "longest pause": max(longest_pause + longest_pause_2),
            "afterwards": [store[key] for key in keys],
            **store.client.stats(),
        }


def connect_slowly(url: str, pid: int) -> dict[str, Any]:
    with hskv.connect(url, pool_size=4, connect_timeout=0.5, timeout=0.5) as store:
        with frozen(pid), ticking() as longest_pause:
            reads = gather([partial(store.get, "key0")] * 4)
        afterwards = store.get("missing", "nothing")
        return {"reads": reads, "longest pause": longest_pause[0], "afterwards": afterwards}


def in_time(call: Callable[[], Any]) -> Any:
    with gevent.Timeout(0.2):
        return call()


def give_up(url: str, pid: int) -> dict[str, Any]:
    with hskv.connect(url, pool_size=4) as store:
        keys = crowd(store, pid)
        with frozen(pid):
            reads = gather([partial(in_time, partial(store.get, "key0"))] * 3)
            added = outcome(partial(in_time, partial(store.add, "late", 1)))
            killed = gevent.spawn(store.get, "key0")
            gevent.sleep(0.05)
            killed.kill()
            left = store.client.stats()
        return {
            "reads": reads,
            "added": added,
            "killed": type(killed.value).__name__,
            "left": left,
            "afterwards": gather([partial(store.get, key) for key in keys]),
            "counted": [store.incr("other"), store.incr("other")],
            **store.client.stats(),
        }


def leave_the_queue(url: str, pid: int) -> dict[str, Any]:
    order: list[int] = []

    def count(number: int) -> None:
        with suppress(gevent.Timeout):
            store.incr("n")
            order.append(number)

    with hskv.connect(url, pool_size=1) as store:
        store["n"] = 0
        with frozen(pid):
            greenlets = [gevent.spawn(count, number) for number in range(6)]
            waiting = 0
            for _ in range(50):
                # On a busy machine they are later.
                gevent.sleep(0.05)
                waiting = store.client.stats()["write"]["waiting"]
                if waiting == len(greenlets) - 1:
                    break
            greenlets[1].kill(gevent.Timeout())
            greenlets[3].kill()
            left = store.client.stats()["write"]["waiting"]
        gevent.joinall(greenlets)
        n = store["n"]
        return {"waiting": waiting, "left": left, "order": order, "n": n, **store.client.stats()}


def sockets() -> set[str]:
    """The sockets that this process holds, by a name that a forked child sees too."""
    names = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            names.add(str(descriptor.readlink()))
    return {name for name in names if name.startswith("socket:")}


def fork(store: Store, pid: int, keys: list[str]) -> dict[str, Any]:
    """Fork while greenlets read, one each of the keys: both processes go on with all of them."""
    receiver, sender = os.pipe()
    with frozen(pid):
        readers = [gevent.spawn(outcome, partial(store.get, key)) for key in keys]
        gevent.sleep(0.05)
        before = sockets()
        child = os.fork()
        # The server goes on when the child has let go of what it lets go of.
        gevent.sleep(0.05 if child == 0 else 0.2)
        shared = len(sockets() & before) if child == 0 else 0
    with gevent.Timeout(7, False):
        gevent.joinall(readers)
    answers = [reader.value for reader in readers]
    own = gather([partial(store.get, "parent" if child else "child")] * 100)
    counted = gather([partial(store.incr, "n")] * 50)
    seen = {"answers": answers, "own": own, "counted": counted, "shared": shared}
    seen |= store.client.stats()
    if child == 0:
        os.write(sender, json.dumps(seen).encode())
        os._exit(0)
    os.waitpid(child, 0)
    in_child = json.loads(os.read(receiver, 1 << 16))
    return {"child": in_child, "parent": seen, "n": store["n"]}


def fork_in_mid_request(url: str, pid: int) -> dict[str, Any]:
    with hskv.connect(url, pool_size=4, timeout=2) as store:
        return fork(store, pid, crowd(store, pid))


def fork_with_a_queue(url: str, pid: int) -> dict[str, Any]:
    with hskv.connect(url, pool_size=4, timeout=2, pool_timeout=2) as store:
        return fork(store, pid, crowd(store, pid) * 3)


def fork_in_mid_login(url: str, pid: int) -> dict[str, Any]:
    with hskv.connect(url, pool_size=4) as other:
        keys = crowd(other, pid)
    with hskv.connect(url, pool_size=4, timeout=2) as store:
        return fork(store, pid, keys)


SCENARIOS = {
    "share": share,
    "time_out": time_out,
    "connect_slowly": connect_slowly,
    "give_up": give_up,
    "leave_the_queue": leave_the_queue,
    "fork_in_mid_request": fork_in_mid_request,
    "fork_with_a_queue": fork_with_a_queue,
    "fork_in_mid_login": fork_in_mid_login,
}

if __name__ == "__main__":
    main()
