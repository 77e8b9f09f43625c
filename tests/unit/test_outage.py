"""What is remembered of a server that is away, by a clock that is passed in."""

import pytest

from hskv import (
    BatchError,
    HandlerSocketError,
    PoolTimeoutError,
    ReadOnlyError,
    TransactionAbortedError,
)
from hskv.exceptions import ConnectionError
from hskv.store import outage
from hskv.store.outage import Outage

AWAY = ConnectionError("away")
READ_ONLY = ReadOnlyError("read-only")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(outage, "monotonic", made)
    return made


def look(remembered: Outage, clock: Clock) -> float:
    """The pause until somebody is to look again; nobody is told so twice."""
    began = clock.now
    while remembered.reason() is not None:
        clock.now += 0.25
    assert remembered.reason() is not None
    return clock.now - began


def test_nobody_waits_where_nothing_failed(clock: Clock) -> None:
    assert Outage().reason() is None


def test_pauses_grow_up_to_ten_seconds_and_begin_anew(clock: Clock) -> None:
    remembered = Outage()
    for _ in range(2):
        remembered.failed(AWAY)
        assert remembered.reason() is AWAY
        pauses = []
        for _ in range(6):
            pauses.append(look(remembered, clock))
            remembered.failed(AWAY)
        assert pauses == [1, 2, 4, 8, 10, 10]
        remembered.ended()
        assert remembered.reason() is None


def test_calls_that_had_been_made_before_it_was_known_lengthen_no_pause(clock: Clock) -> None:
    remembered = Outage()
    for _ in range(8):
        remembered.failed(AWAY)
    assert look(remembered, clock) == 1


def test_one_that_looked_and_never_came_back_stops_nobody_for_ever(clock: Clock) -> None:
    remembered = Outage()
    remembered.failed(AWAY)
    assert look(remembered, clock) == 1
    assert look(remembered, clock) == 10


@pytest.mark.parametrize(
    "answer", [TransactionAbortedError("rolled back"), HandlerSocketError("no value")]
)
def test_what_the_server_answers_is_no_outage(clock: Clock, answer: HandlerSocketError) -> None:
    remembered = Outage()
    remembered.failed(answer)
    assert remembered.reason() is None
    remembered.failed(AWAY)
    look(remembered, clock)
    remembered.failed(answer)
    assert remembered.reason() is None


def test_a_server_that_is_read_only_is_an_outage_of_what_writes(clock: Clock) -> None:
    remembered = Outage()
    remembered.failed(READ_ONLY)
    for pause in (1, 2, 4, 8, 10, 10):
        assert remembered.reason() is READ_ONLY
        assert remembered.reason(writes=False) is None
        remembered.ended(writes=False)
        remembered.failed(HandlerSocketError("no value"), writes=False)
        assert look(remembered, clock) == pause
        remembered.failed(READ_ONLY)
    remembered.ended()
    assert remembered.reason() is None


@pytest.mark.parametrize(("one", "other"), [(AWAY, READ_ONLY), (READ_ONLY, AWAY)])
def test_what_is_away_may_come_back_read_only_and_the_other_way_round(
    clock: Clock, one: HandlerSocketError, other: HandlerSocketError
) -> None:
    remembered = Outage()
    remembered.failed(one)
    look(remembered, clock)
    remembered.failed(one)
    remembered.failed(other)
    assert remembered.reason() is other
    assert remembered.reason(writes=False) is (AWAY if other is AWAY else None)
    assert look(remembered, clock) == 1


def test_a_pool_without_a_free_connection_begins_none_and_ends_none(clock: Clock) -> None:
    remembered = Outage()
    remembered.failed(PoolTimeoutError("busy"))
    assert remembered.reason() is None
    remembered.failed(AWAY)
    look(remembered, clock)
    remembered.failed(PoolTimeoutError("busy"))
    assert remembered.reason() is not None


@pytest.mark.parametrize(("cause", "is_away"), [(AWAY, True), (ValueError("odd"), False)])
def test_of_a_batch_it_is_the_cause_that_counts(
    clock: Clock, cause: Exception, is_away: bool
) -> None:
    remembered = Outage()
    failed = BatchError("half")
    failed.__cause__ = cause
    remembered.failed(failed)
    assert (remembered.reason() is not None) is is_away
