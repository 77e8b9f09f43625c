"""Every public operation under every fault between client and server, judged by the table.

Two forms of one suite: the short one tries each operation under each kind of fault at an offset
that a seed chooses, the long one (`make stress`) at every byte.
"""

import inspect
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import hskv
from hskv import Client, KeyValueStore, Lease, Manager, RateLimiter

from .bench import PORTS, Bench
from .conftest import TRANSPORTS, WORKERS, BenchLoan
from .operations import OPERATIONS, WITHOUT_IO, Effect, Operation
from .oracle import LATE_SECONDS, REFUSALS, Clean, Figures, clean_run, try_out, warm
from .proxy import Direction, Fault, Kind

KINDS = tuple(kind for kind in Kind if kind not in (Kind.ECHO, Kind.ENDLESS))
INTO = (0x00, 0x01, 0x09, 0x0A, 0x31)
SHOWN = 60
TAKEN = b"1\t1\t121"
SLOW = (Kind.BLACK_HOLE, Kind.LATE)

AT_THE_END = {
    Direction.REPLY: {Kind.CUT, Kind.RESET, Kind.HALF_CLOSE},
    Direction.REQUEST: {Kind.CUT, Kind.RESET, Kind.HALF_CLOSE, Kind.BLACK_HOLE},
}
"""What may happen to a connection when all of a request or a reply has passed."""

LIES = (
    *REFUSALS,
    # All of the batch was undone, whatever the other replies say.
    *(b"1\t1\t149", b"1\t1\t200"),
    # Rows, counts and numbers of columns that no request asks for.
    *(b"0\t0", b"0\t1", b"0\t1\t", b"0\t1\t\x00", b"0\t1\t-1", b"0\t1\t99999999999999999999"),
    *(b"0\t1\tnone", b"0\t7" + b"\t1" * 7, b"0\t4294967295\t1", b"0\t-1\t1", b"0\t2\t1"),
    # Those to other requests of hskv.
    *(b"0\t2", b"0\t6", b"0\t1\t1"),
    # No replies at all.
    *(b"", b"0", b"\x00", b"4\t1\tx", b"00\t1\t1", b"HTTP/1.1 400 Bad Request"),
)
"""What a server may say in the place of a line of its reply."""

Case = tuple[str, Fault]


def test_every_operation_has_another_name() -> None:
    names = [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", [KeyValueStore, Client, Manager, Lease, RateLimiter])
def test_every_public_operation_meets_faults(kind: type) -> None:
    public = {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}
    tried = {
        operation.what.partition(".")[2]
        for operation in OPERATIONS
        if operation.what.startswith(f"{kind.__name__}.")
    }
    assert public - tried - WITHOUT_IO[kind] == set()
    assert tried & WITHOUT_IO[kind] == set()


def test_every_special_method_of_a_store_meets_faults() -> None:
    own = {name for name in dir(KeyValueStore) if name.startswith("__")} - set(dir(object))
    asking = {name for name in own if inspect.isfunction(getattr(KeyValueStore, name))}
    tried = {operation.what.partition(".")[2] for operation in OPERATIONS}
    assert asking - tried - {"__enter__", "__exit__", "__class_getitem__"} == set()


def test_what_asks_no_server_is_there() -> None:
    url = "hskv://:secret@127.0.0.1:1,2/hskv"
    with hskv.connect(url) as store:
        things = [store, store.client, store.manager, store.lease("job"), store.limiter("a", 1, 1)]
        for thing in things:
            for name in WITHOUT_IO[type(thing)]:
                assert hasattr(thing, name), name


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_a_clean_run_is_what_the_table_of_operations_says(
    operation: Operation, lend_bench: BenchLoan
) -> None:
    with lend_bench("unix") as bench:
        clean = clean_run(bench, operation)
    passed = {port for (port, _), data in clean.passed.items() if data}
    assert passed == (set(PORTS) if operation.ports == "both" else {operation.ports})
    if operation.effect is Effect.READ:
        assert clean.after == clean.before


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_a_fault_anywhere(kind: Kind, lend_bench: BenchLoan, figures: Figures) -> None:
    def some(bench: Bench, operation: Operation) -> list[str]:
        chance = random.Random(f"{operation} {kind}")
        clean = warm(bench, operation)
        cases = [list(_cases(operation, clean, kind, direction)) for direction in _directions(kind)]
        # What is waited for takes half a second each.
        chosen = [chance.choice(cases)] if kind in SLOW else cases
        faults = [chance.choice(some) for some in chosen]
        return _tried(bench, operation, clean, faults, figures)

    work = [(TRANSPORTS[number % 2], one) for number, one in enumerate(OPERATIONS)]
    _report(_in_threads(lend_bench, some, work))
    assert figures.faults[kind.value] >= len(OPERATIONS)


@pytest.mark.stress
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_a_fault_at_every_byte(kind: Kind, lend_bench: BenchLoan, figures: Figures) -> None:
    def all_of(bench: Bench, operation: Operation) -> list[str]:
        chance = random.Random(f"{operation} {kind} {bench.transport}")
        clean = warm(bench, operation)
        troubles = []
        for direction in _directions(kind):
            cases = list(_cases(operation, clean, kind, direction))
            cases = chance.sample(cases, min(len(cases), MOST.get(kind, len(cases))))
            troubles += _tried(bench, operation, clean, cases, figures)
        return troubles

    work = [(transport, one) for one in OPERATIONS for transport in TRANSPORTS]
    _report(_in_threads(lend_bench, all_of, work))
    assert figures.faults[kind.value] >= 2 * len(OPERATIONS)


MOST = {Kind.BLACK_HOLE: 4, Kind.LATE: 4, Kind.HALF_CLOSE: 8}
"""What takes long is tried at so many offsets of each operation and direction."""


def _directions(kind: Kind) -> Iterable[Direction]:
    # Nothing but the far end of a connection doubles what it says, or tells lies.
    return (Direction.REPLY,) if kind in (Kind.DUPLICATE, Kind.LIE) else Direction


def _cases(operation: Operation, clean: Clean, kind: Kind, direction: Direction) -> Iterator[Case]:
    """Every fault of a kind, one way, on all ports that an operation uses."""
    seconds = LATE_SECONDS if kind is Kind.LATE else 0.0
    for port in PORTS:
        passed = clean.passed[port, direction]
        if kind is Kind.LIE:
            yield from ((port, lie) for lie in _lies(passed, operation))
            continue
        for offset in range(len(passed)):
            for mask in _masks(kind, direction, passed[offset]):
                yield port, Fault(kind, direction, offset, mask, seconds)
        if passed and kind in AT_THE_END[direction]:
            yield port, Fault(kind, direction, len(passed))


def _lies(passed: bytes, operation: Operation) -> Iterator[Fault]:
    """Every lie in the place of every line."""
    # The clock of a bench stands still: a lease that is another's would never end.
    lies = [lie for lie in LIES if not (operation.waits and lie == TAKEN)]
    offset = 0
    for line in passed.split(b"\n")[:-1]:
        yield from (
            Fault(Kind.LIE, Direction.REPLY, offset, line=lie) for lie in lies if lie != line
        )
        offset += len(line) + 1


def _masks(kind: Kind, direction: Direction, byte: int) -> list[int]:
    if kind is not Kind.GARBLE:
        return [0]
    if direction is Direction.REQUEST:
        # Other masks make requests that stop or crash the server: facts/handlersocket.md, 6 and 7.
        return [0x15]
    return [mask for mask in (0x15, 0x80, *(byte ^ other for other in INTO)) if mask]


def _tried(
    bench: Bench, operation: Operation, clean: Clean, cases: Iterable[Case], figures: Figures
) -> list[str]:
    troubles = []
    counted = Figures()
    for port, fault in cases:
        met = counted.faults.total()
        troubles += try_out(bench, operation, clean, port, fault, counted)
        if counted.faults.total() == met:
            # Random numbers are not always as long, so its byte may not have come.
            again = fault._replace(offset=0)
            troubles += try_out(bench, operation, clean, port, again, counted)
    with _counting:
        figures.add(counted)
    return troubles


_counting = threading.Lock()


def _in_threads(
    lend_bench: BenchLoan,
    try_one: Callable[[Bench, Operation], list[str]],
    work: Iterable[tuple[str, Operation]],
) -> list[str]:
    """Try operations side by side, since most of the time is spent in waiting."""

    def begin(transport: str, operation: Operation) -> list[str]:
        with lend_bench(transport) as bench:
            return try_one(bench, operation)

    with ThreadPoolExecutor(WORKERS) as pool:
        futures = [pool.submit(begin, *one) for one in work]
        return [trouble for future in futures for trouble in future.result()]


def _report(troubles: list[str]) -> None:
    shown = "\n".join(troubles[:SHOWN])
    assert not troubles, f"{len(troubles)} of them, the first:\n{shown}"
