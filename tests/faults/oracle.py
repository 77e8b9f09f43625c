"""One fault, one call, three more calls; and what may have come of them.

What no client can see, and is therefore not asked for: HandlerSocket has no checksum, so a byte
within a token of a reply may become another one and the reply is as good as before: another
value, another count, a key that is none. A refusal that was garbled into a success, or into
another refusal, is of that kind too. A request that was garbled on its way is another request,
and the server does what that one says. What a client can see, and must not take for an answer,
is a reply of another shape: another number of lines, tokens or columns, another code, an escape
that is none.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from hskv.exceptions import (
    BatchError,
    ConnectionError,
    HandlerSocketError,
    OperationalError,
    OutcomeUnknownError,
    ProtocolError,
)

from .bench import ALPHA, LISTED, PATIENT_SECONDS, QUICK_SECONDS, Bench, Rows
from .operations import Effect, Operation
from .proxy import BENIGN, Direction, Fault, Kind

MARGIN_SECONDS: Final = 1.0
LATE_SECONDS: Final = QUICK_SECONDS + 0.1
_TRIES: Final = 5

ENDING: Final = frozenset({Kind.CUT, Kind.RESET, Kind.HALF_CLOSE, Kind.BLACK_HOLE, Kind.LATE})
OTHER_BYTES: Final = frozenset({Kind.GARBLE, Kind.LIE})
WAITED_FOR: Final = frozenset({Kind.HALF_CLOSE, Kind.BLACK_HOLE, Kind.LATE, Kind.GARBLE})
"""After these a client may have to wait for its timeout."""

REFUSALS: Final = (
    *(b"1\t1\t121", b"1\t1\t146", b"1\t1\tlock_tables", b"1\t1\topen_table"),
    *(b"2\t1\tstmtnum", b"2\t1\treadonly", b"3\t1\tunauth"),
)
"""What a server may say to any request, so that nobody can know that it is a lie."""

_MALFORMED_ESCAPE: Final = re.compile(rb"\x01(?![\x40-\x4f])")


@dataclass
class Figures:
    """What was done, and what came of it."""

    faults: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    rounds: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    acknowledged: int = 0
    unknown: int = 0
    lost_writes: int = 0
    wrong_answers: int = 0
    denied_writes: int = 0
    doubled_writes: int = 0
    overlong_waits: int = 0

    def add(self, other: "Figures") -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def plain(self) -> dict[str, Any]:
        """As what a test report can carry."""
        return {
            name: dict(value) if isinstance(value, Counter) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Figures":
        counts: dict[str, Any] = {
            name: Counter(value) if isinstance(value, dict) else value
            for name, value in plain.items()
        }
        return cls(**counts)


@dataclass(frozen=True)
class Clean:
    """What an operation comes to, and what passes each way on each port, where no fault is."""

    states: tuple[Rows, ...]
    passed: dict[tuple[str, Direction], bytes]

    @property
    def before(self) -> Rows:
        return self.states[0]

    @property
    def after(self) -> Rows:
        return self.states[-1]


@dataclass(frozen=True)
class Trial:
    """What came of one call under one fault."""

    operation: Operation
    clean: Clean
    fault: Fault
    result: Any
    error: BaseException | None
    seconds: float
    allowed_seconds: float
    rows: Rows
    seen: bytes

    def troubles(self, figures: Figures) -> Iterable[str]:
        """What must not have come of it."""
        # Who is told that another has the lease waits for it.
        is_told_to_wait = self.fault.kind is Kind.LIE and self.invisible
        if self.seconds > self.allowed_seconds + MARGIN_SECONDS and not is_told_to_wait:
            figures.overlong_waits += 1
            yield f"took {self.seconds:.1f} s"
        if self._is_doubled():
            figures.doubled_writes += 1
            yield f"done twice: {_difference(self.clean.after, self.rows)}"
        if self.error is None:
            yield from self._of_success(figures)
        elif isinstance(self.error, HandlerSocketError):
            yield from self._of_error(figures)
        elif not (self.invisible and isinstance(self.error, self.operation.answers)):
            yield f"raised {self.error!r}"

    @property
    def invisible(self) -> bool:
        """No client can see what happened to the bytes."""
        if self.fault.kind not in OTHER_BYTES:
            return False
        if self.fault.direction is Direction.REQUEST:
            return True
        return not _shows(self.seen, self.fault)

    @property
    def must_end(self) -> bool:
        """The channel may not be used again."""
        if self.fault.kind in ENDING:
            return True
        # A whole line that says what cannot be leaves nothing behind it that could be misread.
        if self.fault.kind in BENIGN or self.invisible:
            return False
        return any(
            isinstance(one, (ConnectionError, ProtocolError))
            and not isinstance(one, OutcomeUnknownError)
            for one in (self.error, self.error and self.error.__cause__)
        )

    def _is_doubled(self) -> bool:
        if self.operation.effect is not Effect.ONCE or self.fault.kind in OTHER_BYTES:
            return False
        return any(
            int(row[1] or 0) > max(int(state[key][1] or 0) for state in holding)
            for key, row in self.rows.items()
            if (holding := [state for state in self.clean.states if key in state])
        )

    def _of_success(self, figures: Figures) -> Iterable[str]:
        if self.invisible:
            return
        if self.result != self.operation.gives and not self._holds_refusal():
            figures.wrong_answers += 1
            yield f"gave {self.result!r}"
        if self.rows != self.clean.after and self.fault.kind not in OTHER_BYTES:
            figures.lost_writes += 1
            yield f"succeeded, yet {_difference(self.clean.after, self.rows)}"

    def _of_error(self, figures: Figures) -> Iterable[str]:
        if self.fault.kind in BENIGN:
            yield f"raised {self.error!r}"
        if self.operation.effect is Effect.READ and self.fault.kind in (Kind.CUT, Kind.RESET):
            yield f"was not tried again: {self.error!r}"
        if self.invisible:
            return
        if isinstance(self.error, BatchError):
            yield from self._of_batch(self.error, figures)
        elif isinstance(self.error, OutcomeUnknownError):
            if self.rows not in self.clean.states:
                yield f"unknown, yet {_difference(self.clean.after, self.rows)}"
        elif self.rows != self.clean.before and not self._is_refusal():
            figures.denied_writes += 1
            yield f"{self.error!r}, yet {_difference(self.clean.before, self.rows)}"

    def _is_refusal(self) -> bool:
        """A success was garbled into a refusal, as the server gives them."""
        reason = self.error.__cause__ if isinstance(self.error, BatchError) else self.error
        is_said = not isinstance(reason, (ConnectionError, ProtocolError))
        return self.fault.kind in OTHER_BYTES and is_said

    def _holds_refusal(self) -> bool:
        """As above, of an operation that gives errors of the server as values."""
        results = self.result if isinstance(self.result, list) else []
        is_said = any(isinstance(one, OperationalError) for one in results)
        return self.fault.kind in OTHER_BYTES and is_said

    def _of_batch(self, error: BatchError, figures: Figures) -> Iterable[str]:
        before, after = self.clean.before, self.clean.after
        for names, allowed in (
            (error.stored, (after,)),
            (error.failed, (before, after) if self._is_refusal() else (before,)),
            (error.unknown, (before, after)),
        ):
            for name in names:
                key = str(name).encode()
                if self.rows.get(key) not in [state.get(key) for state in allowed]:
                    figures.denied_writes += 1
                    yield f"{error}, yet {key!r} is {self.rows.get(key)!r}"


_known: Final[dict[str, Clean]] = {}


def clean_run(bench: Bench, operation: Operation) -> Clean:
    """Run an operation without a fault, also on connections that are there already."""
    states = bench.states(operation.prepare, operation.call)
    for _ in range(2):
        result, passed = _watched(bench, operation)
        assert result == operation.gives, f"{operation}: {result!r}"
        assert bench.rows() == states[-1], operation
    return Clean(tuple(states), passed)


def warm(bench: Bench, operation: Operation) -> Clean:
    """Open new stores, their connections, and the indexes that an operation needs."""
    clean = _known.get(operation.name)
    if clean is None:
        # Threads may find out the same twice, which does no harm.
        clean = _known[operation.name] = clean_run(bench, operation)
    bench.renew()
    for timeout in (QUICK_SECONDS, PATIENT_SECONDS):
        bench.use(timeout)
        _watched(bench, operation)
        bench.reset()
        assert follow_up(bench) == []
    return clean


def _watched(bench: Bench, operation: Operation) -> tuple[Any, dict[tuple[str, Direction], bytes]]:
    bench.reset()
    operation.prepare(bench)
    for proxy in bench.proxies.values():
        proxy.arm(None)
    result = operation.call(bench)
    passed = {
        (port, direction): proxy.seen(direction)
        for port, proxy in bench.proxies.items()
        for direction in Direction
    }
    return result, passed


def try_out(
    bench: Bench, operation: Operation, clean: Clean, port: str, fault: Fault, figures: Figures
) -> list[str]:
    """Call an operation under a fault, and then others; what was wrong, one line each."""
    proxy = bench.proxies[port]
    bench.use(QUICK_SECONDS if fault.kind in WAITED_FOR else PATIENT_SECONDS)
    bench.reset()
    operation.prepare(bench)
    connections = proxy.connections
    proxy.arm(fault)
    result, error, seconds = _called(bench, operation)
    proxy.settle()
    fired, seen = proxy.fired, proxy.seen(fault.direction)
    proxy.arm(None)
    figures.calls += 1
    figures.faults[fault.kind.value] += fired
    figures.outcomes[type(error).__name__ if error else "success"] += 1
    allowed = bench.timeout
    trial = Trial(operation, clean, fault, result, error, seconds, allowed, bench.rows(), seen)
    if operation.effect is not Effect.READ:
        figures.acknowledged += error is None
        figures.unknown += isinstance(error, (OutcomeUnknownError, BatchError))
    troubles = list(trial.troubles(figures))
    bench.reset()
    wrong, late = ask(bench)
    if fired and trial.must_end and proxy.connections == connections:
        troubles.append("the channel was used again")
    if late and not wrong:
        bench.reset()
        wrong = follow_up(bench)
    figures.calls += 3
    figures.wrong_answers += len(wrong)
    troubles += wrong
    return [f"{operation}, {fault} ({port}, {bench.transport}): {trouble}" for trouble in troubles]


def _called(bench: Bench, operation: Operation) -> tuple[Any, BaseException | None, float]:
    began = time.monotonic()
    try:
        result, error = operation.call(bench), None
    except Exception as raised:  # noqa: BLE001 whatever it is, it is judged
        result, error = None, raised
    return result, error, time.monotonic() - began


def follow_up(bench: Bench) -> list[str]:
    """What is wrong of three further calls, each of which knows its answer."""
    for _ in range(_TRIES):
        wrong, late = ask(bench)
        if wrong or not late:
            return wrong
        # A busy machine may take longer than the store waits that is quick to give up.
        bench.rows()
        bench.reset()
    return late


def ask(bench: Bench) -> tuple[list[str], list[str]]:
    """What of these calls was wrong, and what had no answer in time."""
    store, both = bench.store, {"gamma": LISTED, "beta": 41}
    calls: tuple[tuple[str, Callable[[], Any], Any], ...] = (
        ("get", lambda: store.get("alpha"), ALPHA),
        ("get_many", lambda: store.get_many(["gamma", "beta"]), both),
        ("incr", lambda: store.incr("beta"), 42),
    )
    wrong: list[str] = []
    late: list[str] = []
    for name, call, expected in calls:
        try:
            answer = call()
        except Exception as error:  # noqa: BLE001 whatever it is, it is wrong
            (late if _is_late(error) else wrong).append(f"then {name} raised {error!r}")
        else:
            if answer != expected:
                wrong.append(f"then {name} gave {answer!r}")
    return wrong, late


def _is_late(error: BaseException | None) -> bool:
    return error is not None and (isinstance(error, TimeoutError) or _is_late(error.__cause__))


def _shows(seen: bytes, fault: Fault) -> bool:
    """A reply was garbled into one that cannot be the answer to its request."""
    at = fault.offset
    if at >= len(seen):
        return False
    start = seen.rfind(b"\n", 0, at) + 1
    end = seen.index(b"\n", at)
    line = seen[start:end]
    if fault.kind is Kind.LIE:
        return fault.line not in REFUSALS and _is_seen(line.split(b"\t"), fault.line.split(b"\t"))
    byte = seen[at] ^ fault.mask
    if seen[at] == 0x0A or byte == 0x0A:
        return True
    garbled = seen[start:at] + bytes([byte]) + seen[at + 1 : end]
    return _is_seen(line.split(b"\t"), garbled.split(b"\t"))


def _is_seen(tokens: list[bytes], garbled: list[bytes]) -> bool:
    if _MALFORMED_ESCAPE.search(b"\t".join(garbled)):
        return True
    if tokens[0] != b"0":
        # A refusal has no shape but its code.
        return garbled[0] not in (b"0", b"1", b"2", b"3") or len(garbled) < 2
    if tokens[:2] != garbled[:2]:
        return True
    # A TAB more or less in a row of one column makes a row more or less.
    return (len(garbled) - 2) % int(tokens[1] or 1) != 0


def _difference(expected: Rows, rows: Rows) -> str:
    keys = expected.keys() | rows.keys()
    changed = {
        key: (expected.get(key), rows.get(key))
        for key in sorted(keys)
        if expected.get(key) != rows.get(key)
    }
    return f"(expected, is) {changed!r}"
