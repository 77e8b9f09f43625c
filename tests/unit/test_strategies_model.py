"""The strategies of a rate limiter against a table that is a dict, in every order of steps.

The verbs are applied exactly as the server does, one at a time; between any two of them another
client may come in, as where a packet is split on its way. Clocks of clients differ.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hskv.exceptions import ContentionError, DuplicateKeyError, LockTimeoutError
from hskv.store.plans import ROUNDS, Plan
from hskv.store.ratelimit import STRATEGIES, StrategyName
from hskv.store.strategies import Decision, FixedWindow, GenericCellRate, SlidingWindow, Strategy
from hskv.store.verbs import Add, Condition, Find, Insert, Update, Verb

KINDS: list[Any] = list(STRATEGIES.values())
KEY = b"k"
PER_MS = 1000
START = 1_700_000_000.0
DUPLICATE = DuplicateKeyError("there", code=1, reason="121")
LOCKED = LockTimeoutError("locked", code=1, reason="146")
COMPARE = {
    "=": int.__eq__,
    "<": int.__lt__,
    "<=": int.__le__,
    ">": int.__gt__,
    ">=": int.__ge__,
}


class Clock:
    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Table:
    """One row, as a dict of its integer columns."""

    def __init__(self) -> None:
        self.row: dict[str, int] | None = None
        self.changes = 0

    def apply(self, verb: Verb) -> Any:
        if isinstance(verb, Insert):
            return self._insert(verb)
        if isinstance(verb, Find):
            return self._cells(verb.columns, ())
        assert isinstance(verb, (Add, Update)), f"{verb}: teach this table what the server does"
        before = self._cells(verb.columns, verb.where)
        if before:
            assert self.row is not None
            self.changes += 1
            values = verb.deltas if isinstance(verb, Add) else verb.cells
            for column, value in zip(verb.columns, values, strict=True):
                old = self.row[column] if isinstance(verb, Add) else 0
                self.row[column] = old + int(value)
        return before if isinstance(verb, Add) else len(before)

    def _insert(self, verb: Insert) -> Any:
        if self.row is not None:
            return DUPLICATE
        self.changes += 1
        row = verb.row
        self.row = {"number": row.number, "version": row.version, "expires": row.expires}
        return True

    def _cells(self, columns: Sequence[str], where: Sequence[Condition]) -> list[Any]:
        row = self.row
        if row is None or not all(COMPARE[op](row[name], int(at)) for name, op, at in where):
            return []
        return [tuple(b"%d" % row[column] for column in columns)]


class Call:
    """A hit under way, advanced one verb at a time."""

    def __init__(self, plan: Plan[Decision], cost: int) -> None:
        self.plan, self.cost, self.changes = plan, cost, 0
        self.decision: Decision | None = None
        self.outcomes: list[Any] = []
        self.verbs = next(plan)

    def step(self, table: Table) -> bool:
        """One verb; true when the hit is decided."""
        self.outcomes.append(table.apply(self.verbs[len(self.outcomes)]))
        if len(self.outcomes) < len(self.verbs):
            return False
        try:
            outcomes, self.outcomes = self.outcomes, []
            self.verbs = self.plan.send(outcomes)
        except StopIteration as done:
            self.decision = done.value
            return True
        except ContentionError:
            return True
        return False


def hit(strategy: Strategy, table: Table, cost: int = 1) -> Decision:
    return run(strategy.hit(KEY, cost), table)


def run(plan: Plan[Decision], table: Table) -> Decision:
    call = Call(plan, 1)
    while not call.step(table):
        pass
    assert call.decision is not None
    return call.decision


class Recorded(Clock):
    """A clock of a client that is off by so much, and remembers what it said last."""

    def __init__(self, world: Clock, ahead: float) -> None:
        super().__init__()
        self.world, self.ahead, self.said = world, ahead, 0.0

    def __call__(self) -> float:
        self.said = self.world.now + self.ahead
        return self.said


class Admission(NamedTuple):
    """When, by the clock of who did it; what it cost; the window that the row then named."""

    at: float
    cost: int
    window: int


STEPS = st.lists(
    st.tuples(st.integers(0, 3), st.floats(0, 0.3), st.integers(1, 3)), min_size=1, max_size=120
)
SKEWS = st.lists(st.sampled_from([0.0, 0.0, 0.02, -0.02, 0.4, -1.0]), min_size=4, max_size=4)


def play(
    kind: Any, limit: int, steps: list[tuple[int, float, int]], ahead: list[float]
) -> list[Admission]:
    """Four clients hit in any order of verbs; the admissions, in the order of the table."""
    world, table = Clock(), Table()
    clocks = [Recorded(world, off) for off in ahead]
    clients = [kind(limit, PER_MS, clock) for clock in clocks]
    calls: dict[int, Call] = {}
    admitted: list[Admission] = []
    for number, passing, wanted in steps:
        world.now += passing
        cost = min(wanted, limit)
        call = calls.get(number) or Call(clients[number].hit(KEY, cost), cost)
        calls[number] = call
        changes = table.changes
        is_decided = call.step(table)
        if table.changes > changes:
            assert table.row is not None
            call.changes += 1
            admitted.append(Admission(clocks[number].said, call.cost, table.row["version"]))
        if is_decided:
            del calls[number]
            assert call.changes == (call.decision is not None and call.decision.allowed)
    return admitted


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 6), STEPS, SKEWS)
def test_a_fixed_window_never_admits_more_than_its_limit(
    limit: int, steps: list[tuple[int, float, int]], ahead: list[float]
) -> None:
    counts = Counter[int]()
    for at, cost, window in play(FixedWindow, limit, steps, ahead):
        # Another's clock that is ahead is followed; none is ever gone back from.
        assert window >= int(at * 1000) // PER_MS
        counts[window] += cost
    assert all(count <= limit for count in counts.values())


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 6), STEPS, SKEWS)
def test_gcra_never_admits_more_than_a_burst_and_its_rate(
    limit: int, steps: list[tuple[int, float, int]], ahead: list[float]
) -> None:
    admitted = sorted(play(GenericCellRate, limit, steps, ahead))
    for first, (begin, _, _) in enumerate(admitted):
        total = 0
        for at, cost, _ in admitted[first:]:
            total += cost
            # The clock says nanoseconds that a float cannot hold.
            assert total <= limit + (at - begin + 1e-6) * limit / (PER_MS / 1000)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 6), STEPS, SKEWS)
def test_the_estimate_of_a_sliding_window_never_passes_its_limit(
    limit: int, steps: list[tuple[int, float, int]], ahead: list[float]
) -> None:
    counts = Counter[int]()
    for at, cost, window in play(SlidingWindow, limit, steps, ahead):
        counts[window] += cost
        elapsed = max(int(at * 1000) - window * PER_MS, 0)
        assert counts[window] + counts[window - 1] * (PER_MS - elapsed) / PER_MS <= limit


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.floats(0, 1.5), st.integers(1, 9)), min_size=1, max_size=40),
)
def test_one_client_alone(kind: Any, limit: int, hits: list[tuple[float, int]]) -> None:
    """A refused hit changes nothing; after `retry_after` it passes; peek tells what a hit gets."""
    clock, table = Clock(), Table()
    strategy = kind(limit, PER_MS, clock)
    for passing, wanted in hits:
        clock.now += passing
        cost = min(wanted, limit)
        peeked = run(strategy.peek(KEY, cost), table)
        changes = table.changes
        decision = hit(strategy, table, cost)
        assert bool(peeked) == bool(decision)
        assert 0 <= decision.remaining <= limit
        assert decision.limit == limit
        if decision:
            assert table.changes == changes + 1
            assert decision.retry_after == 0
            assert decision.reset_after > 0
            continue
        assert table.changes == changes
        assert peeked == decision
        assert decision.retry_after > 0
        assert decision.remaining < cost
        # Clocks are read to a millisecond, or to what a float holds.
        clock.now += decision.retry_after + 0.0011
        assert run(strategy.peek(KEY, cost), table)


@pytest.mark.parametrize("kind", KINDS)
def test_all_is_there_again_after_reset_after(kind: Any) -> None:
    clock, table = Clock(START + 0.3), Table()
    strategy = kind(4, PER_MS, clock)
    for _ in range(3):
        decision = hit(strategy, table)
    clock.now += decision.reset_after + 0.0011
    assert run(strategy.peek(KEY, 1), table).remaining == 4
    assert hit(strategy, table, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_refused_while_there_is_room(kind: Any) -> None:
    clock, table = Clock(), Table()
    strategy = kind(1000, PER_MS, clock)
    assert all(hit(strategy, table) for _ in range(1000))
    assert not hit(strategy, table)


@pytest.mark.parametrize("kind", KINDS)
def test_it_gives_up_when_others_always_come_first(kind: Any) -> None:
    plan = kind(5, PER_MS, Clock()).hit(KEY, 1)
    verbs = overtaken(plan, next(plan), ROUNDS - 1)
    with pytest.raises(ContentionError):
        overtaken(plan, verbs, 4 * ROUNDS)  # a round is of as many requests as a strategy likes


def overtaken(plan: Plan[Decision], verbs: Sequence[Verb], times: int) -> Sequence[Verb]:
    for _ in range(times):
        verbs = plan.send([_nothing(verb) for verb in verbs])
    return verbs


def _nothing(verb: Verb) -> Any:
    """Nothing applies, nothing is there, and the insert finds a row."""
    if isinstance(verb, Insert):
        return DUPLICATE
    return 0 if isinstance(verb, Update) else []


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_the_server_is_raised(kind: Any) -> None:
    plan = kind(5, PER_MS, Clock()).hit(KEY, 1)
    verbs = next(plan)
    with pytest.raises(LockTimeoutError):
        plan.send([LOCKED for _ in verbs])


@pytest.mark.parametrize("kind", KINDS)
def test_a_clock_ahead_is_followed_and_never_widens_the_limit(kind: Any) -> None:
    table = Table()
    ahead, behind = Clock(START + 0.999), Clock(START)
    fast, slow = kind(3, PER_MS, ahead), kind(3, PER_MS, behind)
    ahead.now += 0.5
    assert all(hit(fast, table) for _ in range(3))
    refused = hit(slow, table)
    assert not refused
    assert 0 < refused.retry_after < math.inf
    behind.now += refused.retry_after + 0.0011
    assert hit(slow, table)


def test_each_strategy_has_a_name_for_mypy_and_a_code_of_its_own() -> None:
    assert list(get_args(StrategyName)) == list(STRATEGIES)
    assert len({kind.code for kind in KINDS}) == len(KINDS)


def test_the_rows_of_a_limiter_outlive_what_they_count() -> None:
    for kind in KINDS:
        clock, table = Clock(), Table()
        strategy = kind(3, PER_MS, clock)
        for _ in range(20):
            hit(strategy, table)
            clock.now += 0.21
            decision = run(strategy.peek(KEY, 1), table)
            assert table.row is not None
            if decision.reset_after:
                end = (clock.now + decision.reset_after) * 1000
                assert table.row["expires"] >= end + PER_MS - 2
