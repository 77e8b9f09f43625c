"""Every public operation: how it is called, what it gives, and what a fault may do to it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import hskv
from hskv import Client, Decision, KeyValueStore, Lease, Manager, RateLimiter
from hskv.client import Index
from hskv.store.strategies import WindowCounts
from hskv.transport.retry import Effect as Sent
from hskv.wire import requests

from .bench import ALPHA, LISTED, Bench

READ: Final = "read"
WRITE: Final = "write"
BOTH: Final = "both"


class Effect(Enum):
    """What an operation does to the table."""

    READ = "read"
    IDEMPOTENT = "idempotent write"
    """To do it twice is to do it once."""
    ONCE = "write that must not be repeated"


@dataclass(frozen=True)
class Operation:
    """One way to call something public; `name` begins with what is called.

    `gives` is the result of a clean run, `ports` those it asks. What `prepare` does is not
    judged. `batch`: it may raise BatchError. `answers` are exceptions other than hskv's that are
    answers of the operation, such as KeyError for a key that is missing. `waits`: for as long as
    it is told that another has the lease.
    """

    name: str
    call: Callable[[Bench], Any]
    gives: Any = None
    effect: Effect = Effect.READ
    ports: str = READ
    prepare: Callable[[Bench], object] = lambda bench: None
    batch: bool = False
    answers: tuple[type[Exception], ...] = ()
    waits: bool = False

    @property
    def what(self) -> str:
        """The class and method, without the variant."""
        return self.name.partition(" ")[0]

    def __str__(self) -> str:
        return self.name


def reads(name: str, call: Callable[[Bench], Any], gives: Any, **more: Any) -> Operation:
    return Operation(name, call, gives, **more)


def writes(name: str, call: Callable[[Bench], Any], gives: Any = None, **more: Any) -> Operation:
    return Operation(name, call, gives, **{"effect": Effect.IDEMPOTENT, "ports": WRITE, **more})


def once(name: str, call: Callable[[Bench], Any], gives: Any = None, **more: Any) -> Operation:
    return Operation(name, call, gives, **{"effect": Effect.ONCE, "ports": WRITE, **more})


ITEMS: Final = {
    "alpha": ALPHA,
    "beta": 41,
    "gamma": LISTED,
    "pre:x": "ex",
    "pre:y": "why",
    "session": "mine",
}
NEW: Final = {"alpha": "new", "fresh": 1, "pre:x": "new", "other": [2]}
MISSED: Final = (KeyError,)
COUNTED: Final = (TypeError, OverflowError)


def without(bench: Bench, key: str) -> None:
    del bench.store[key]


def stored(bench: Bench, key: str, value: Any) -> None:
    bench.store[key] = value


STORE: Final = [
    reads("KeyValueStore.get", lambda b: b.store.get("alpha"), ALPHA),
    reads("KeyValueStore.get of none", lambda b: b.store.get("none", 5), 5),
    reads("KeyValueStore.__getitem__", lambda b: b.store["beta"], 41, answers=MISSED),
    reads("KeyValueStore.__contains__", lambda b: "gamma" in b.store, True),
    reads(
        "KeyValueStore.get_versioned",
        lambda b: b.store.get_versioned("alpha"),
        (ALPHA, 7),
        answers=MISSED,
    ),
    reads("KeyValueStore.ttl", lambda b: b.store.ttl("session"), 60.0, answers=MISSED),
    reads(
        "KeyValueStore.get_many",
        lambda b: b.store.get_many(["gamma", "alpha", "none"]),
        {"gamma": LISTED, "alpha": ALPHA},
    ),
    reads("KeyValueStore.__len__", lambda b: len(b.store), 6),
    reads("KeyValueStore.__bool__", lambda b: bool(b.store), True),
    reads("KeyValueStore.__iter__", lambda b: list(b.store), list(ITEMS)),
    reads("KeyValueStore.__eq__", lambda b: b.store == ITEMS, True),
    reads("KeyValueStore.keys", lambda b: list(b.store.keys()), list(ITEMS)),
    reads("KeyValueStore.items", lambda b: list(b.store.items()), list(ITEMS.items())),
    reads("KeyValueStore.values", lambda b: list(b.store.values()), list(ITEMS.values())),
    reads("KeyValueStore.to_dict", lambda b: b.store.to_dict(), ITEMS),
    reads(
        "KeyValueStore.scan",
        lambda b: list(b.store.scan("pre:", batch=1)),
        [("pre:x", "ex"), ("pre:y", "why")],
    ),
    reads("KeyValueStore.find", lambda b: b.store.find("=", ["beta"], ["n"]), [(b"41",)]),
    writes("KeyValueStore.set", lambda b: b.store.set("alpha", "new\n")),
    writes("KeyValueStore.set of a new key", lambda b: b.store.set("fresh", "new\n", ttl=60)),
    writes("KeyValueStore.set that keeps", lambda b: b.store.set("session", "new", ttl=hskv.KEEP)),
    writes("KeyValueStore.set that resolves", lambda b: b.store.set("fresh", "new", resolve=True)),
    writes("KeyValueStore.__setitem__", lambda b: stored(b, "gamma", {"y": 2})),
    once("KeyValueStore.add", lambda b: b.store.add("fresh", "new"), True),
    once("KeyValueStore.add of an old key", lambda b: b.store.add("alpha", "new"), False),
    once("KeyValueStore.add over a dead one", lambda b: b.store.add("dead", "new"), True),
    writes("KeyValueStore.replace", lambda b: b.store.replace("alpha", "new"), True),
    once(
        "KeyValueStore.compare_and_set", lambda b: b.store.compare_and_set("alpha", "new", 7), True
    ),
    once("KeyValueStore.swap", lambda b: b.store.swap("alpha", "new"), ALPHA, answers=MISSED),
    once("KeyValueStore.swap of a new key", lambda b: b.store.swap("fresh", 1, default=0), 0),
    once("KeyValueStore.setdefault", lambda b: b.store.setdefault("fresh", 5), 5),
    once("KeyValueStore.setdefault of an old key", lambda b: b.store.setdefault("beta", 5), 41),
    once("KeyValueStore.delete", lambda b: b.store.delete("alpha"), True),
    once("KeyValueStore.__delitem__", lambda b: without(b, "beta"), answers=MISSED),
    writes("KeyValueStore.touch", lambda b: b.store.touch("alpha", 60), True),
    writes("KeyValueStore.set_many", lambda b: b.store.set_many(NEW), batch=True),
    writes("KeyValueStore.update", lambda b: b.store.update(NEW, beta="b"), batch=True),
    once(
        "KeyValueStore.delete_many",
        lambda b: b.store.delete_many(["alpha", "none", "pre:y"]),
        2,
        batch=True,
    ),
    once("KeyValueStore.delete_prefix", lambda b: b.store.delete_prefix("pre:"), 2),
    writes("KeyValueStore.clear", lambda b: b.store.clear()),
    once("KeyValueStore.incr", lambda b: b.store.incr("beta", 5), 46, answers=COUNTED),
    once(
        "KeyValueStore.incr of a new key",
        lambda b: b.store.incr("fresh", 5, initial=2),
        7,
        answers=COUNTED,
    ),
    reads(
        "KeyValueStore.incr past its ceiling",
        lambda b: b.store.incr("beta", 5, ceiling=42),
        None,
        effect=Effect.ONCE,
        ports=WRITE,
        answers=COUNTED,
    ),
    once("KeyValueStore.decr", lambda b: b.store.decr("beta", 2, floor=0), 39, answers=COUNTED),
    writes(
        "KeyValueStore.get_or_set",
        lambda b: b.store.get_or_set("fresh", lambda: 9),
        9,
        ports=BOTH,
        waits=True,
    ),
    reads("KeyValueStore.get_or_set of an old key", lambda b: b.store.get_or_set("beta", int), 41),
    writes(
        "KeyValueStore.memoize",
        lambda b: b.store.memoize(key=lambda n: f"square:{n}")(lambda n: n * n)(3),
        9,
        ports=BOTH,
        waits=True,
    ),
    once("KeyValueStore.pop", lambda b: b.store.pop("alpha"), ALPHA, answers=MISSED),
    once("KeyValueStore.pop of none", lambda b: b.store.pop("none", 5), 5, ports=BOTH),
    once("KeyValueStore.popitem", lambda b: b.store.popitem(), ("alpha", ALPHA), answers=MISSED),
    once("KeyValueStore.purge_expired", lambda b: b.store.purge_expired(), 1),
    once("KeyValueStore.modify", lambda b: b.store.modify("=", ["beta"], "+", {"n": 4}), 1),
    writes("KeyValueStore.check", lambda b: b.store.check(), ports=BOTH),
]


def index_of(bench: Bench) -> Index:
    return bench.client.open(bench.table, ["k", "n"], filter_columns=["n"])


def number_of(bench: Bench) -> Index:
    # Adding touches every column: nothing may be added to a key.
    return bench.client.open(bench.table, ["n"])


FIND_BETA: Final = requests.find("=", [b"beta"])
COUNT_BETA: Final = requests.find_modify("=", [b"beta"], "+", [b"3"])
BETA: Final = [(b"beta", b"41")]

CLIENT: Final = [
    reads("Client.find", lambda b: b.client.find(index_of(b), "=", ["beta"]), BETA),
    reads(
        "Client.find of several",
        lambda b: b.client.find(
            index_of(b), "=", [""], limit=3, in_=(0, ["beta", "none", "gamma"])
        ),
        [*BETA, (b"gamma", b"0")],
    ),
    once("Client.insert", lambda b: b.client.insert(index_of(b), ["new", 1])),
    writes(
        "Client.modify", lambda b: b.client.modify(index_of(b), "=", ["beta"], "U", ["beta", 2]), 1
    ),
    once(
        "Client.modify by adding",
        lambda b: b.client.modify(number_of(b), "=", ["beta"], "+", [2]),
        1,
    ),
    once(
        "Client.modify_returning",
        lambda b: b.client.modify_returning(number_of(b), "=", ["beta"], "+", [2]),
        [(b"41",)],
    ),
    reads(
        "Client.pipeline",
        lambda b: (
            b.client.pipeline()
            .find(index_of(b), "=", ["beta"])
            .find(index_of(b), "=", ["none"])
            .find(index_of(b), "=", ["gamma"])
            .execute()
        ),
        [BETA, [], [(b"gamma", b"0")]],
    ),
    once(
        "Client.pipeline of writes",
        lambda b: (
            b.client.pipeline()
            .insert(index_of(b), ["new", 1])
            .modify(number_of(b), "=", ["beta"], "+", [2])
            .modify_returning(index_of(b), "=", ["pre:x"], "D")
            .find(index_of(b), "=", ["beta"])
            .execute()
        ),
        [None, 1, [(b"pre:x", b"0")], [(b"beta", b"43")]],
    ),
    reads("Client.call", lambda b: b.client.call(index_of(b), FIND_BETA, Sent.READ), BETA),
    once(
        "Client.call of a write",
        lambda b: b.client.call(number_of(b), COUNT_BETA, Sent.WRITE_ROW),
        [(b"1",)],
    ),
    reads(
        "Client.call_many",
        lambda b: b.client.call_many([(index_of(b), FIND_BETA)] * 2, Sent.READ),
        [BETA, BETA],
    ),
    reads("Client.verify", lambda b: b.client.verify(index_of(b)), None),
]

FIELDS: Final = ["k", "n"]
PAIRS: Final = [("k", "beta"), ("n", "41")]


def of(bench: Bench) -> tuple[str, str]:
    return ("hskv", bench.table)


def asked(bench: Bench) -> Any:
    socket = bench.manager.read_socket
    return socket.find(socket.get_index_id(*of(bench), FIELDS), "=", ["beta"])


def changed(bench: Bench) -> Any:
    socket = bench.manager.write_socket
    number = socket.get_index_id(*of(bench), ["n"])
    return socket.find_modify(number, "=", ["beta"], "+", ["2"])


MANAGER: Final = [
    reads("Manager.get", lambda b: b.manager.get(*of(b), FIELDS, "beta"), PAIRS),
    reads("Manager.find", lambda b: b.manager.find(*of(b), "=", FIELDS, ["beta"]), [PAIRS]),
    once("Manager.insert", lambda b: b.manager.insert(*of(b), [("k", "new"), ("n", 1)]), True),
    writes(
        "Manager.update", lambda b: b.manager.update(*of(b), "=", FIELDS, ["beta"], ["beta", 2]), 1
    ),
    once("Manager.incr", lambda b: b.manager.incr(*of(b), "=", ["n"], ["beta"], ["2"]), 1),
    once(
        "Manager.decr",
        lambda b: b.manager.decr(*of(b), "=", ["n"], ["beta"], ["2"], return_original=True),
        [[("n", "41")]],
    ),
    once("Manager.delete", lambda b: b.manager.delete(*of(b), "=", FIELDS, ["beta"]), 1),
    reads(
        "Manager.pipeline",
        lambda b: (
            b.manager.pipeline().get(*of(b), FIELDS, "beta").get(*of(b), FIELDS, "no").execute()
        ),
        [PAIRS, []],
    ),
    once(
        "Manager.pipeline of writes",
        lambda b: (
            b.manager.pipeline()
            .incr(*of(b), "=", ["n"], ["beta"], ["2"])
            .delete(*of(b), "=", FIELDS, ["alpha"])
            .execute()
        ),
        [1, 1],
    ),
    reads("Manager.read_socket", asked, [["beta", "41"]]),
    once("Manager.write_socket", changed, [["1"]]),
]


def new_lease(bench: Bench, **options: Any) -> None:
    bench.lease = bench.store.lease("job", ttl=30.0, **options)


def held_lease(bench: Bench, **options: Any) -> None:
    new_lease(bench, **options)
    assert bench.lease.acquire(wait=False)


def within(bench: Bench) -> None:
    with bench.lease:
        pass


LEASE: Final = [
    once("Lease.acquire", lambda b: b.lease.acquire(wait=False), True, prepare=new_lease),
    once(
        "Lease.acquire with a fence",
        lambda b: (b.lease.acquire(wait=False), b.lease.fence),
        (True, 1),
        prepare=lambda b: new_lease(b, fence=True),
    ),
    writes("Lease.release", lambda b: b.lease.release(), prepare=held_lease),
    writes("Lease.extend", lambda b: b.lease.extend(90.0), prepare=held_lease),
    reads("Lease.locked", lambda b: b.lease.locked(), True, prepare=held_lease),
    once("Lease.__enter__", within, prepare=new_lease, waits=True),
]


def new_limiter(bench: Bench, strategy: Any = "fixed-window") -> None:
    bench.limiter = bench.store.limiter("api", 5, 60, strategy)


def used_limiter(bench: Bench, strategy: Any = "fixed-window") -> None:
    new_limiter(bench, strategy)
    assert bench.limiter.hit("ann").allowed


def begun_elsewhere(bench: Bench) -> None:
    used_limiter(bench, "sliding-window")
    new_limiter(bench, "sliding-window")


FIXED: Final = Decision(True, 5, 4, 0.0, 40.0)

LIMITER: Final = [
    once("RateLimiter.hit", lambda b: b.limiter.hit("ann"), FIXED, prepare=new_limiter),
    once(
        "RateLimiter.hit again",
        lambda b: b.limiter.hit("ann", cost=2),
        Decision(True, 5, 2, 0.0, 40.0),
        prepare=used_limiter,
    ),
    once(
        "RateLimiter.hit of a sliding window",
        lambda b: b.limiter.hit("ann"),
        Decision(True, 5, 3, 0.0, 100.0),
        prepare=lambda b: used_limiter(b, "sliding-window"),
    ),
    once(
        "RateLimiter.hit of a sliding window that another has begun",
        lambda b: b.limiter.hit("ann"),
        Decision(True, 5, 3, 0.0, 100.0),
        prepare=begun_elsewhere,
        ports=BOTH,
    ),
    once(
        "RateLimiter.hit by gcra",
        lambda b: b.limiter.hit("ann"),
        Decision(True, 5, 3, 0.0, 24.0),
        prepare=lambda b: used_limiter(b, "gcra"),
    ),
    reads("RateLimiter.peek", lambda b: b.limiter.peek("ann"), FIXED, prepare=used_limiter),
    writes("RateLimiter.reset", lambda b: b.limiter.reset("ann"), True, prepare=used_limiter),
    once("RateLimiter.clear", lambda b: b.limiter.clear(), 1, prepare=used_limiter),
    reads(
        "RateLimiter.counts",
        lambda b: b.limiter.counts("ann"),
        WindowCounts(0, 0.0, 1, 100.0),
        prepare=lambda b: used_limiter(b, "sliding-window"),
    ),
    once(
        "RateLimiter.acquire", lambda b: b.limiter.acquire("ann", wait=0), True, prepare=new_limiter
    ),
    once(
        "RateLimiter.limit",
        lambda b: b.limiter.limit("ann")(lambda: "done")(),
        "done",
        prepare=new_limiter,
    ),
]

OPERATIONS: Final = [*STORE, *CLIENT, *MANAGER, *LEASE, *LIMITER]

WITHOUT_IO: Final[dict[type, set[str]]] = {
    KeyValueStore: {
        "client",
        "close",
        "computing",
        "key_type",
        "lease",
        "limiter",
        "manager",
        "namespace",
        "reading",
        "reserved",
        "row_key",
        "stats",
        "table",
    },
    Client: {
        "close",
        "drain",
        "from_settings",
        "of_primary",
        "open",
        "purge",
        "resume",
        "settings",
        "stats",
    },
    Manager: {"close", "over", "purge"},
    Lease: {"after_fork", "fence", "held", "token", "ttl"},
    RateLimiter: {"headers", "name", "per", "quota", "strategy"},
}
"""What is public and asks the server nothing: no fault of a connection can reach it."""
