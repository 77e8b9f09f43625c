"""Processes that write, each with a log of what it was told; and what the table says of it.

What a process was told is acknowledged, refused, or unknown. Of what was acknowledged nothing
may be missing; of what is in the table all must have been acknowledged, or be unknown; and what
only one may win must not have been won by two.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, NamedTuple

import hskv
from hskv import KeyValueStore
from hskv.exceptions import BatchError, HandlerSocketError, OutcomeUnknownError
from hskv.store.ratelimit import STRATEGIES

Store = KeyValueStore[str, Any]

PROCESSES: Final = 8
TIMEOUT_SECONDS: Final = 0.8
CONNECT_SECONDS: Final = 0.4
LEASE_SECONDS: Final = 1.0
HITS_ALLOWED: Final = 3
# One window for the whole test.
PERIOD_SECONDS: Final = 10 * 365 * 86_400

_OWN_KEYS: Final = 40
# What all processes try for at once is another thing after so long.
_SLOT_SECONDS: Final = 0.02
_STARTING_SECONDS: Final = 30.0
_BEAT_SECONDS: Final = 0.05
_WORK_SECONDS: Final = 600.0


class Turn(NamedTuple):
    """A time during which a process knew that it held the lease; all share the clock."""

    since: float
    until: float
    fence: int


@dataclass
class Written:
    """What a key should hold: the last value acknowledged, or one whose outcome is unknown."""

    acknowledged: int | None = None
    unknown: list[int] = field(default_factory=list)
    earlier: set[int] = field(default_factory=set)

    def acknowledge(self, value: int) -> None:
        self.acknowledged = value
        self.earlier.update(self.unknown)
        self.unknown.clear()

    def allows(self, value: int | None, *, late: bool) -> bool:
        """`late` where the server may have done what is unknown after what came later."""
        if value == self.acknowledged or value in self.unknown:
            return True
        return late and value in self.earlier


@dataclass
class Log:
    """What one process was told."""

    acknowledged: int = 0
    unknown: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    written: dict[str, Written] = field(default_factory=dict)
    added: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    perhaps_added: set[str] = field(default_factory=set)
    counted: list[int] = field(default_factory=list)
    perhaps_counted: int = 0
    exchanged: list[int] = field(default_factory=list)
    perhaps_exchanged: int = 0
    put: set[str] = field(default_factory=set)
    perhaps_put: set[str] = field(default_factory=set)
    taken: list[str] = field(default_factory=list)
    perhaps_taken: int = 0
    turns: list[Turn] = field(default_factory=list)
    hits: Counter[str] = field(default_factory=Counter)
    perhaps_hit: Counter[str] = field(default_factory=Counter)
    misread: list[str] = field(default_factory=list)
    impossible: list[str] = field(default_factory=list)
    longest: dict[str, float] = field(default_factory=dict)
    last_acknowledged: float = 0.0

    def longest_request(self) -> float:
        """The seconds of the longest call that is one request."""
        return max(self.longest.get(name, 0.0) for name in ONE_REQUEST)


class Load:
    """One process at work: every call is written down with what came of it."""

    def __init__(self, number: int, store: Store) -> None:
        self.log = Log()
        self._number = number
        self._store = store
        self._random = random.Random(number)
        self._serial = 0
        self._lease = store.lease("job", ttl=LEASE_SECONDS, max_skew=0.2, fence=True)
        self._limiters = [
            store.limiter("api", HITS_ALLOWED, PERIOD_SECONDS, strategy) for strategy in STRATEGIES
        ]
        self._items = store.namespace("item:")

    def turn(self, name: str | None = None) -> None:
        """One call, whichever unless it is said."""
        self._serial += 1
        name = name or self._random.choice(CALLS)
        began = time.monotonic()
        try:
            getattr(self, f"_{name}")()
        except OutcomeUnknownError:
            self.log.unknown += 1
        except HandlerSocketError as error:
            reason = getattr(error, "reason", None)
            self.log.errors[f"{type(error).__name__} {reason or ''}".strip()] += 1
        else:
            self.log.acknowledged += name != "read"
            self.log.last_acknowledged = time.monotonic()
        seconds = time.monotonic() - began
        self.log.longest[name] = max(seconds, self.log.longest.get(name, 0.0))

    def _set(self) -> None:
        key, value = f"own:{self._number}:{self._serial % _OWN_KEYS}", self._serial
        written = self.log.written.setdefault(key, Written())
        with self._unknown(lambda: written.unknown.append(value)):
            self._store.set(key, value)
        written.acknowledge(value)

    def _read(self) -> None:
        """Two of the keys that no other process writes, of which one may not be there yet."""
        keys = [f"own:{self._number}:{self._random.randrange(_OWN_KEYS)}" for _ in range(2)]
        seen = self._store.get_many(keys)
        seen[keys[0]] = self._store.get(keys[0])
        for key in keys:
            written = self.log.written.get(key, Written())
            told = f"{key} was {seen.get(key)}, not {written}"
            if not written.allows(seen.get(key), late=False):
                self.log.misread.append(told)
            if not written.allows(seen.get(key), late=True):
                self.log.impossible.append(told)

    def _add(self) -> None:
        key = f"add:{_slot()}"
        with self._unknown(lambda: self.log.perhaps_added.add(key)):
            won = self._store.add(key, self._number)
        (self.log.added if won else self.log.refused).add(key)

    def _incr(self) -> None:
        with self._unknown(lambda: self._count("perhaps_counted")):
            self.log.counted.append(self._store.incr("count"))

    def _exchange(self) -> None:
        value, version = self._store.get_versioned("chain")
        with self._unknown(lambda: self._count("perhaps_exchanged")):
            won = self._store.compare_and_set("chain", value + 1, version)
        if won:
            self.log.exchanged.append(value + 1)

    def _put(self) -> None:
        keys = [f"{self._number}:{self._serial}:{part}" for part in range(3)]
        try:
            self._items.set_many(dict.fromkeys(keys, self._serial))
        except BatchError as error:
            self.log.put.update(map(str, error.stored))
            self.log.perhaps_put.update(map(str, error.unknown))
            raise
        self.log.put.update(keys)

    def _take(self) -> None:
        with suppress(KeyError), self._unknown(lambda: self._count("perhaps_taken")):
            key, _ = self._items.popitem()
            self.log.taken.append(key)

    def _pop(self) -> None:
        """One of the own items, unless another has taken it."""
        if not self.log.put:
            return
        key = self._random.choice(sorted(self.log.put)[-3 * _OWN_KEYS :])
        with self._unknown(lambda: self._count("perhaps_taken")):
            if self._items.pop(key, None) is not None:
                self.log.taken.append(key)

    def _hold(self) -> None:
        if not self._lease.acquire(wait=False):
            return
        since = time.monotonic()
        fence = self._lease.fence
        if self._lease.held and fence is not None:
            time.sleep(self._random.uniform(0, 0.004))
            until = time.monotonic()
            self.log.turns.append(Turn(since, until if self._lease.held else since, fence))
        self._lease.release()

    def _hit(self) -> None:
        slot = _slot()
        limiter = self._limiters[slot % len(self._limiters)]
        name = f"{limiter.strategy}:{slot}"
        with self._unknown(lambda: self.log.perhaps_hit.update([name])):
            allowed = limiter.hit(str(slot)).allowed
        if allowed:
            self.log.hits[name] += 1

    def _count(self, name: str) -> None:
        setattr(self.log, name, getattr(self.log, name) + 1)

    @contextmanager
    def _unknown(self, note: Callable[[], object]) -> Iterator[None]:
        try:
            yield
        except OutcomeUnknownError:
            note()
            raise


# Each name is a method of Load; those named more often are called more often.
CALLS: Final = (
    *("set", "set", "read", "add", "incr", "incr"),
    *("exchange", "put", "take", "pop", "hold", "hit"),
)
ONE_REQUEST: Final = ("set", "add", "incr")


def _slot() -> int:
    return int(time.monotonic() / _SLOT_SECONDS)


def work(number: int, url: str, options: dict[str, Any], directory: str) -> Log:
    """Call one after another until there is a file `stop`; the log."""
    place = Path(directory)
    deadline = time.monotonic() + _WORK_SECONDS
    times = {"timeout": TIMEOUT_SECONDS, "connect_timeout": CONNECT_SECONDS}
    store: Store
    with hskv.connect(url, **{**times, **options}) as store:
        load = Load(number, store)
        beat = 0.0
        while not (place / "stop").exists() and time.monotonic() < deadline:
            load.turn()
            if load.log.last_acknowledged > beat + _BEAT_SECONDS:
                beat = load.log.last_acknowledged
                (place / f"beat{number}").touch()
    return load.log


def nothing() -> None:
    """What a process is given to do so that it has started."""


class Crowd:
    """Processes that do the work on a table together, again and again."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(PROCESSES, get_context("spawn"))
        for future in [self._pool.submit(nothing) for _ in range(PROCESSES)]:
            future.result(_STARTING_SECONDS)
        self._runs = 0

    def close(self) -> None:
        self._pool.shutdown()

    @contextmanager
    def at_work(
        self, url: str, place: Path, *, empty: Callable[[], object] | None = None, **options: Any
    ) -> Iterator["Shift"]:
        """All of them are at work meanwhile, on an empty table; then their logs are there.

        `empty` empties it where HandlerSocket does not write.
        """
        with hskv.connect(url, **options) as store:
            if empty is None:
                store.modify(">=", [""], "D", limit=2**32 - 1)
            else:
                empty()
            store.set_many({"count": 0, "chain": 0})
        place.mkdir(exist_ok=True)
        shift = Shift(place)
        try:
            for number in range(PROCESSES):
                shift.futures.append(self._pool.submit(work, number, url, options, str(place)))
            shift.wait_until_all_work()
            yield shift
        finally:
            shift.end()


class Shift:
    """One run of a crowd."""

    def __init__(self, place: Path) -> None:
        self.futures: list[Future[Log]] = []
        self.logs: list[Log] = []
        self._place = place

    def wait_until_all_work(self) -> None:
        """Each of them has from now on been told that something is done."""
        now = time.time()
        deadline = time.monotonic() + _STARTING_SECONDS
        # The clock of the files is a coarse one.
        while self._beats(since=now + 2 * _BEAT_SECONDS) < PROCESSES:
            assert time.monotonic() < deadline, "a process does not work"
            assert not any(future.done() for future in self.futures), "a process ended"
            time.sleep(0.01)

    def _beats(self, since: float) -> int:
        return sum(beat.stat().st_mtime > since for beat in self._place.glob("beat*"))

    def end(self) -> None:
        (self._place / "stop").touch()
        self.logs = [future.result(_STARTING_SECONDS) for future in self.futures]


@dataclass
class Verdict:
    """What the logs and the table together say."""

    acknowledged: int
    unknown: int
    lost: list[str]
    doubled: list[str]
    misread: list[str]
    longest: float
    errors: Counter[str]

    @property
    def overrun(self) -> float:
        """By how much a request passed what it may take, connecting included."""
        return max(0.0, self.longest - TIMEOUT_SECONDS - CONNECT_SECONDS)

    def __str__(self) -> str:
        return (
            f"{self.acknowledged:,} writes acknowledged, {self.unknown} unknown, "
            f"{len(self.lost)} lost, {len(self.doubled)} doubled, {len(self.misread)} wrong "
            f"answers, longest request "
            f"{self.longest:.2f} s, {self.overrun:.2f} s past its deadline, "
            f"errors {dict(self.errors)}"
        )


def compare(logs: Sequence[Log], store: Store, *, late: bool = False) -> Verdict:
    """Lay the logs beside the table.

    `late` where requests whose outcome is unknown may have been carried out long after, as by a
    server that was stopped.
    """
    checks = (_of_sets, _of_adds, _of_counts, _of_exchanges, _of_items, _of_hits)
    lost, doubled = [], _of_turns(logs)
    for check in checks:
        missing, surplus = check(logs, store, late)
        lost += missing
        doubled += surplus
    errors: Counter[str] = Counter()
    for log in logs:
        errors.update(log.errors)
    return Verdict(
        acknowledged=sum(log.acknowledged for log in logs),
        unknown=sum(log.unknown for log in logs),
        lost=lost,
        doubled=doubled,
        misread=[one for log in logs for one in (log.impossible if late else log.misread)],
        longest=max(log.longest_request() for log in logs),
        errors=errors,
    )


Found = tuple[list[str], list[str]]


def _of_sets(logs: Sequence[Log], store: Store, late: bool) -> Found:
    written = _merged(log.written for log in logs)
    found = store.get_many(written)
    wrong = [
        f"{key} is {found.get(key)}, not {own}"
        for key, own in written.items()
        if not own.allows(found.get(key), late=late)
    ]
    return wrong, []


def _of_adds(logs: Sequence[Log], store: Store, late: bool) -> Found:
    tried = set().union(*(log.added | log.refused | log.perhaps_added for log in logs))
    found = store.get_many(tried)
    lost, doubled = [], []
    for key in tried:
        winners = [number for number, log in enumerate(logs) if key in log.added]
        perhaps = [number for number, log in enumerate(logs) if key in log.perhaps_added]
        if len(winners) > 1:
            doubled.append(f"{key} was added by {winners}")
        known = winners or any(key in log.refused for log in logs)
        if key in found:
            if found[key] not in (winners or perhaps):
                doubled.append(f"{key} is {found[key]}, added by {winners}, perhaps {perhaps}")
        elif known:
            lost.append(f"{key} of {winners} is missing")
    return lost, doubled


def _of_counts(logs: Sequence[Log], store: Store, late: bool) -> Found:
    seen = [number for log in logs for number in log.counted]
    return _between("count", seen, sum(log.perhaps_counted for log in logs), store.get("count", 0))


def _of_exchanges(logs: Sequence[Log], store: Store, late: bool) -> Found:
    seen = [number for log in logs for number in log.exchanged]
    return _between(
        "chain", seen, sum(log.perhaps_exchanged for log in logs), store.get("chain", 0)
    )


def _between(name: str, seen: list[int], perhaps: int, value: int) -> Found:
    """Numbers that were given to one each, the last of which is in the table."""
    most = len(seen) + perhaps
    lost = [f"{name} is {value}, acknowledged {len(seen)}"] if value < len(seen) else []
    lost += [f"{name} is {value}, but {max(seen)} was given"] if seen and value < max(seen) else []
    doubled = [f"{name} is {value}, acknowledged and unknown {most}"] if value > most else []
    return lost, doubled + _repeated(name, seen)


def _of_items(logs: Sequence[Log], store: Store, late: bool) -> Found:
    left = set(store.namespace("item:"))
    put = set().union(*(log.put for log in logs))
    perhaps_put = set().union(*(log.perhaps_put for log in logs))
    taken = [key for log in logs for key in log.taken]
    missing = put - left - set(taken)
    lost = []
    if len(missing) > sum(log.perhaps_taken for log in logs):
        lost = [f"item {key} was neither taken nor left" for key in missing]
    unheard = (left | set(taken)) - put - perhaps_put
    doubled = [f"item {key} was never put" for key in unheard]
    doubled += [f"item {key} was taken and is left" for key in left & set(taken)]
    return lost, doubled + _repeated("item", taken)


def _of_turns(logs: Sequence[Log]) -> list[str]:
    turns = sorted(turn for log in logs for turn in log.turns)
    doubled = [
        f"{one} and {other} at once" for one, other in pairwise(turns) if other.since < one.until
    ]
    doubled += [
        f"fence {one.fence} before {other.fence}"
        for one, other in pairwise(turns)
        if other.fence <= one.fence
    ]
    return doubled


def _of_hits(logs: Sequence[Log], store: Store, late: bool) -> Found:
    hits, perhaps = Counter[str](), Counter[str]()
    for log in logs:
        hits.update(log.hits)
        perhaps.update(log.perhaps_hit)
    lost = []
    for name, count in hits.items():
        strategy, _, slot = name.partition(":")
        limiter = store.limiter("api", HITS_ALLOWED, PERIOD_SECONDS, strategy)  # type: ignore[arg-type]
        counted = HITS_ALLOWED - limiter.peek(slot).remaining
        if counted < count:
            lost.append(f"{name} counted {counted} of {count} hits")
        elif counted > count + perhaps[name]:
            lost.append(f"{name} counted {counted}, of {count} hits and {perhaps[name]} unknown")
    doubled = [f"{name} allowed {count}" for name, count in hits.items() if count > HITS_ALLOWED]
    return lost, doubled


def _repeated(name: str, seen: Iterable[Hashable]) -> list[str]:
    counts = Counter(seen)
    return [f"{name} {one} was given {times} times" for one, times in counts.items() if times > 1]


def _merged(parts: Iterable[dict[str, Written]]) -> dict[str, Written]:
    return {key: written for part in parts for key, written in part.items()}
