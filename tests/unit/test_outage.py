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
from hskv.store.outage import Need, Outage
from hskv.transport.sql_servers import NoneWritableError

AWAY = ConnectionError("away")
READ_ONLY = ReadOnlyError("read-only")
NONE_WRITABLE = NoneWritableError("none can be written to")


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


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [(READ_ONLY, [Need.VALUES, Need.PRIMARY]), (NONE_WRITABLE, [Need.VALUES])],
)
def test_where_none_can_be_written_to_what_needs_less_goes_on_and_ends_nothing(
    clock: Clock, error: HandlerSocketError, goes_on: list[Need]
) -> None:
    remembered = Outage()
    remembered.failed(error)
    for pause in (1, 2, 4, 8, 10, 10):
        for need in Need:
            assert remembered.reason(need) is (None if need in goes_on else error)
        for need in goes_on:
            remembered.ended(need)
            remembered.failed(HandlerSocketError("no value"), need)
        assert look(remembered, clock) == pause
        remembered.failed(error)
    remembered.ended()
    assert remembered.reason() is None


def test_what_was_read_from_the_server_to_write_to_says_that_there_is_one(clock: Clock) -> None:
    remembered = Outage()
    remembered.failed(NONE_WRITABLE)
    remembered.ended(Need.PRIMARY)
    assert remembered.reason() is None


def test_where_no_replica_is_to_be_read_from_values_wait_for_the_same(clock: Clock) -> None:
    remembered = Outage()
    remembered.failed(NONE_WRITABLE)
    clock.now += 0.5
    remembered.failed(NONE_WRITABLE, Need.VALUES)
    for pause in (1, 2, 4):
        assert remembered.reason(Need.VALUES) is NONE_WRITABLE
        assert look(remembered, clock) == pause
        remembered.failed(NONE_WRITABLE)
    assert look(remembered, clock) == 8
    remembered.ended(Need.VALUES)
    assert remembered.reason(Need.VALUES) is None
    assert remembered.reason() is None, "one that writes looks at once"
    assert remembered.reason() is NONE_WRITABLE
    remembered.failed(NONE_WRITABLE)
    assert remembered.reason(Need.VALUES) is None
    assert look(remembered, clock) == 10


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
    assert remembered.reason(Need.VALUES) is (AWAY if other is AWAY else None)
    assert look(remembered, clock) == 2


def test_pauses_grow_where_reads_and_writes_fail_for_reasons_of_their_own(clock: Clock) -> None:
    remembered = Outage()
    for pause in (1, 2, 4, 8, 10, 10):
        remembered.failed(NONE_WRITABLE)
        assert remembered.reason(Need.VALUES) is None
        remembered.failed(AWAY, Need.VALUES)
        assert remembered.reason(Need.VALUES) is AWAY
        assert look(remembered, clock) == pause


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
