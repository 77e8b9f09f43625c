"""Every branch of every plan, driven by lists of outcomes: no server, no clock."""

from collections.abc import Sequence
from typing import Any

import pytest

from hskv.exceptions import (
    ContentionError,
    DuplicateKeyError,
    LockTimeoutError,
    OperationalError,
    SerializationError,
)
from hskv.store import plans
from hskv.store.plans import Bounds, Exchanged, Plan, Progress, Readable
from hskv.store.values import Kind
from hskv.store.verbs import (
    Add,
    Condition,
    Delete,
    DeleteRange,
    Find,
    Insert,
    Inserts,
    Row,
    Update,
    Updates,
    Verb,
    dead,
    live,
)
from hskv.wire.requests import INT64_MAX, INT64_MIN

NOW = 1_000
DUPLICATE = DuplicateKeyError("there", code=1, reason="121")
LOCKED = LockTimeoutError("locked", code=1, reason="146")
FULL = OperationalError("full", code=1, reason="135")
READABLE = Readable((Condition("kind", "<=", 3),), lambda kind: kind <= 3)
ROW = Row(b"k", b"v", 0, Kind.BYTES, 7, 5_000)


def now() -> int:
    return NOW


def drive(plan: Plan[Any], *script: Sequence[Any]) -> tuple[Any, list[list[Verb]]]:
    """Feed the outcomes of each round to a plan; its result and what it asked for."""
    asked = [next(plan)]
    for number, outcomes in enumerate(script, 1):
        assert len(outcomes) == sum(
            len(verb.rows) if isinstance(verb, (Updates, Inserts)) else 1 for verb in asked[-1]
        )
        try:
            asked.append(plan.send(list(outcomes)))
        except StopIteration as done:
            assert number == len(script), "the plan ended before its script"
            return done.value, asked
    pytest.fail(f"the plan wants more: {asked[-1]}")


class TestSet:
    def test_a_row_that_exists_takes_one_update(self) -> None:
        _, asked = drive(plans.set_row(ROW), [1])
        assert asked == [[Update(b"k", (), *ROW.changes())]]

    def test_a_new_row_is_inserted_after_the_update_found_nothing(self) -> None:
        _, asked = drive(plans.set_row(ROW), [0], [True])
        assert asked[1] == [Insert(ROW)]

    def test_a_row_made_by_another_in_between_starts_it_over(self) -> None:
        _, asked = drive(plans.set_row(ROW), [0], [DUPLICATE], [1])
        assert isinstance(asked[2][0], Update)

    def test_an_error_of_the_update_is_raised(self) -> None:
        with pytest.raises(LockTimeoutError):
            drive(plans.set_row(ROW), [LOCKED])

    def test_an_error_of_the_insert_is_raised(self) -> None:
        with pytest.raises(OperationalError, match="full"):
            drive(plans.set_row(ROW), [0], [FULL])

    def test_it_gives_up_when_others_always_come_first(self) -> None:
        rounds: list[list[Any]] = [[0], [DUPLICATE]] * plans.ROUNDS
        with pytest.raises(ContentionError):
            drive(plans.set_row(ROW), *rounds, [[(b"0",)]])

    def test_a_duplicate_of_another_unique_index_is_raised_as_such(self) -> None:
        rounds: list[list[Any]] = [[0], [DUPLICATE]] * plans.ROUNDS
        with pytest.raises(DuplicateKeyError):
            drive(plans.set_row(ROW), *rounds, [[]])


class TestAdd:
    def test_the_packet_inserts_or_takes_over_or_finds(self) -> None:
        stored, asked = drive(plans.add_row(ROW, now), [True, 0, [(b"0",)]])
        assert stored is True
        assert asked[0] == [
            Insert(ROW),
            Update(b"k", dead(NOW), *ROW.changes()),
            Find((b"k",), ("kind",), live(NOW)),
        ]

    def test_an_expired_row_is_taken_over(self) -> None:
        assert drive(plans.add_row(ROW, now), [DUPLICATE, 1, []])[0] is True

    def test_a_live_row_refuses_it(self) -> None:
        assert drive(plans.add_row(ROW, now), [DUPLICATE, 0, [(b"1",)]])[0] is False

    def test_a_row_removed_in_between_starts_it_over(self) -> None:
        stored, _ = drive(plans.add_row(ROW, now), [DUPLICATE, 0, []], [True, 0, []])
        assert stored is True

    @pytest.mark.parametrize("outcomes", [[LOCKED, 0, []], [DUPLICATE, LOCKED, []]])
    def test_an_error_is_raised_where_nothing_was_stored(self, outcomes: list[Any]) -> None:
        with pytest.raises(LockTimeoutError):
            drive(plans.add_row(ROW, now), outcomes)

    def test_an_error_of_the_find_is_raised(self) -> None:
        with pytest.raises(LockTimeoutError):
            drive(plans.add_row(ROW, now), [DUPLICATE, 0, LOCKED])

    def test_a_success_beside_an_error_is_a_success(self) -> None:
        assert drive(plans.add_row(ROW, now), [True, LOCKED, LOCKED])[0] is True
        assert drive(plans.add_row(ROW, now), [LOCKED, 1, LOCKED])[0] is True

    def test_it_gives_up_when_others_always_come_first(self) -> None:
        with pytest.raises(ContentionError):
            drive(plans.add_row(ROW, now), *[[DUPLICATE, 0, []]] * plans.ROUNDS)

    def test_setdefault_gives_the_columns_of_the_row_that_lives(self) -> None:
        plan = plans.default_row(ROW, now, ("value", "number", "kind"))
        assert drive(plan, [DUPLICATE, 0, [(b"old", b"0", b"0")]])[0] == (b"old", b"0", b"0")


def counter(first: int) -> Row:
    return Row(b"k", b"", first, Kind.INTEGER, 7, 5_000)


def row_of(number: int, kind: Kind = Kind.INTEGER) -> list[tuple[bytes, ...]]:
    return [(b"%d" % kind, b"%d" % number)]


class TestIncrement:
    def test_a_live_integer_takes_one_filtered_addition(self) -> None:
        value, asked = drive(plans.increment(counter(5), 5, Bounds(), now), [[(b"37", b"1")]])
        assert value == 42
        integer = Condition("kind", "=", Kind.INTEGER)
        room = Condition("number", "<=", INT64_MAX - 5)
        assert asked == [
            [Add(b"k", (integer, *live(NOW), room), ("number", "version"), (5, 1))],
        ]

    def test_a_negative_amount_takes_the_other_bound(self) -> None:
        value, asked = drive(plans.increment(counter(-5), -5, Bounds(), now), [[(b"3", b"1")]])
        assert value == -2
        assert isinstance(asked[0][0], Add)
        assert asked[0][0].where[-1] == Condition("number", ">=", INT64_MIN + 5)

    def test_a_missing_counter_is_made(self) -> None:
        plan = plans.increment(counter(5), 5, Bounds(), now)
        value, asked = drive(plan, [[]], [True, 0, row_of(5)])
        assert value == 5
        assert asked[1][0] == Insert(counter(5))

    def test_an_expired_counter_begins_anew(self) -> None:
        plan = plans.increment(counter(5), 5, Bounds(), now)
        assert drive(plan, [[]], [DUPLICATE, 1, []])[0] == 5

    def test_one_made_by_another_in_between_is_added_to(self) -> None:
        plan = plans.increment(counter(5), 5, Bounds(), now)
        value, _ = drive(plan, [[]], [DUPLICATE, 0, row_of(1)], [[(b"1", b"1")]])
        assert value == 6

    def test_one_removed_in_between_is_made(self) -> None:
        plan = plans.increment(counter(5), 5, Bounds(), now)
        assert drive(plan, [[]], [DUPLICATE, 0, []], [[]], [True, 0, []])[0] == 5

    def test_another_kind_is_a_type_error(self) -> None:
        plan = plans.increment(counter(5), 5, Bounds(), now)
        with pytest.raises(TypeError):
            drive(plan, [[]], [DUPLICATE, 0, row_of(0, Kind.TEXT)])

    def test_past_64_bits_is_an_overflow(self) -> None:
        plan = plans.increment(counter(5), 5, Bounds(), now)
        with pytest.raises(OverflowError):
            drive(plan, [[]], [DUPLICATE, 0, row_of(INT64_MAX - 4)])

    def test_past_the_ceiling_is_none(self) -> None:
        plan = plans.increment(counter(5), 5, Bounds(ceiling=10), now)
        assert drive(plan, [[]], [DUPLICATE, 0, row_of(6)])[0] is None

    def test_a_first_value_past_the_ceiling_is_not_stored(self) -> None:
        plan = plans.increment(counter(20), 5, Bounds(ceiling=10), now)
        value, asked = drive(plan, [[]], [[]])
        assert value is None
        assert asked[1] == [Find((b"k",), ("kind", "number"), live(NOW))]

    def test_a_first_value_past_the_ceiling_does_not_hide_a_live_counter(self) -> None:
        plan = plans.increment(counter(20), 5, Bounds(ceiling=10), now)
        assert drive(plan, [[]], [row_of(2)], [[(b"2", b"1")]])[0] == 7

    def test_a_first_value_past_64_bits_is_an_overflow(self) -> None:
        with pytest.raises(OverflowError):
            drive(plans.increment(counter(INT64_MAX + 1), 1, Bounds(), now), [[]], [[]])

    def test_a_bound_that_no_64_bit_number_meets_is_never_sent(self) -> None:
        plan = plans.increment(counter(5), 5, Bounds(ceiling=INT64_MIN), now)
        value, asked = drive(plan, [row_of(1)])
        assert value is None
        assert isinstance(asked[0][0], Find)

    def test_an_error_of_the_addition_is_raised(self) -> None:
        with pytest.raises(LockTimeoutError):
            drive(plans.increment(counter(5), 5, Bounds(), now), [LOCKED])

    def test_it_gives_up_when_others_always_come_first(self) -> None:
        rounds: list[list[Any]] = [[[]], [DUPLICATE, 0, []]] * plans.ROUNDS
        with pytest.raises(ContentionError):
            drive(plans.increment(counter(5), 5, Bounds(), now), *rounds)


class TestKeep:
    def test_a_live_row_takes_one_update_without_the_expiry(self) -> None:
        _, asked = drive(plans.keep_row(ROW, now), [1])
        assert asked == [[Update(b"k", live(NOW), *ROW.content())]]

    @pytest.mark.parametrize("taken", [[True, 0, []], [DUPLICATE, 1, []]])
    def test_a_missing_or_dead_row_is_made(self, taken: list[Any]) -> None:
        _, asked = drive(plans.keep_row(ROW, now), [0], taken)
        assert asked[1][0] == Insert(ROW)

    def test_a_row_made_in_between_starts_it_over(self) -> None:
        drive(plans.keep_row(ROW, now), [0], [DUPLICATE, 0, [(b"0",)]], [1])

    @pytest.mark.parametrize(
        "script", [[[LOCKED]], [[0], [DUPLICATE, 0, LOCKED]], [[0], [FULL, 0, []]]]
    )
    def test_errors_are_raised(self, script: list[Any]) -> None:
        with pytest.raises(OperationalError):
            drive(plans.keep_row(ROW, now), *script)

    def test_it_gives_up_when_others_always_come_first(self) -> None:
        rounds: list[list[Any]] = [[0], [DUPLICATE, 0, []]] * plans.ROUNDS
        with pytest.raises(ContentionError):
            drive(plans.keep_row(ROW, now), *rounds)


class TestSwap:
    @pytest.mark.parametrize("keep", [False, True])
    def test_a_live_row_takes_one_request(self, keep: bool) -> None:
        before = (b"old", b"7", b"1", b"3", b"5000")
        plan = plans.swap_row(ROW, READABLE, now, keep=keep)
        exchanged, asked = drive(plan, [[before[:4] if keep else before]])
        assert exchanged == Exchanged((b"old", b"7", b"1"))
        (update,) = asked[0]
        assert isinstance(update, Update)
        assert update.returning
        assert ("expires" in update.columns) is not keep
        assert update.where == (*live(NOW), *READABLE.where)

    def test_a_missing_row_is_made(self) -> None:
        plan = plans.swap_row(ROW, READABLE, now, keep=False)
        assert drive(plan, [[]], [True, 0, []])[0] == Exchanged(None)

    def test_a_row_that_cannot_be_read_is_left(self) -> None:
        plan = plans.swap_row(ROW, READABLE, now, keep=False)
        with pytest.raises(SerializationError, match="kind 5"):
            drive(plan, [[]], [DUPLICATE, 0, [(b"5",)]])

    def test_a_row_made_in_between_is_exchanged(self) -> None:
        plan = plans.swap_row(ROW, READABLE, now, keep=False)
        before = (b"old", b"7", b"1", b"3", b"5000")
        script: list[list[Any]] = [[[]], [DUPLICATE, 0, [(b"1",)]], [[before]]]
        assert drive(plan, *script)[0] == Exchanged((b"old", b"7", b"1"))

    def test_it_gives_up_when_others_always_come_first(self) -> None:
        rounds: list[list[Any]] = [[[]], [DUPLICATE, 0, []]] * plans.ROUNDS
        with pytest.raises(ContentionError):
            drive(plans.swap_row(ROW, READABLE, now, keep=False), *rounds)


class TestTake:
    def test_a_live_row_takes_one_request(self) -> None:
        plan = plans.take_row(b"k", ("value",), READABLE, now)
        row, asked = drive(plan, [[(b"v",)]])
        assert row == (b"v",)
        assert asked == [[Delete((b"k",), (*live(NOW), *READABLE.where), returning=("value",))]]

    def test_a_missing_row_is_none(self) -> None:
        assert drive(plans.take_row(b"k", ("value",), READABLE, now), [[]], [[]])[0] is None

    def test_a_row_that_cannot_be_read_is_left(self) -> None:
        with pytest.raises(SerializationError, match="kind 5"):
            drive(plans.take_row(b"k", ("value",), READABLE, now), [[]], [[(b"5",)]])

    def test_a_row_set_in_between_is_taken(self) -> None:
        plan = plans.take_row(b"k", ("value",), READABLE, now)
        assert drive(plan, [[]], [[(b"1",)]], [[(b"v",)]])[0] == (b"v",)

    @pytest.mark.parametrize("script", [[[LOCKED]], [[[]], [LOCKED]]])
    def test_errors_are_raised(self, script: list[Any]) -> None:
        with pytest.raises(LockTimeoutError):
            drive(plans.take_row(b"k", ("value",), READABLE, now), *script)

    def test_it_gives_up_when_others_always_come_first(self) -> None:
        plan = plans.take_row(b"k", ("value",), READABLE, now)
        rounds: list[list[Any]] = [[[]], [[(b"1",)]]] * plans.ROUNDS
        with pytest.raises(ContentionError):
            drive(plan, *rounds)


class TestRanges:
    def test_take_first_sweeps_the_expired_and_takes_the_first_live_one(self) -> None:
        plan = plans.take_first(b"a", b"b", ("key", "value"), READABLE, now)
        row, asked = drive(plan, [3, [(b"a1", b"v")]])
        assert row == (b"a1", b"v")
        sweep, take = asked[0]
        assert isinstance(sweep, DeleteRange)
        assert (sweep.while_, sweep.where) == (dead(NOW), ())
        where = (*live(NOW), *READABLE.where)
        assert take == DeleteRange(b"a", b"b", 1, where=where, returning=("key", "value"))

    def test_take_first_of_nothing_is_none(self) -> None:
        assert drive(plans.take_first(b"a", None, ("key",), READABLE, now), [0, []])[0] is None

    @pytest.mark.parametrize("outcomes", [[LOCKED, []], [0, LOCKED]])
    def test_take_first_raises_errors(self, outcomes: list[Any]) -> None:
        with pytest.raises(LockTimeoutError):
            drive(plans.take_first(b"a", None, ("key",), READABLE, now), outcomes)

    def test_clear_goes_on_behind_the_last_key_it_removed(self) -> None:
        page = [(b"a%04d" % number, b"2000") for number in range(plans.PACKET_ROWS)]
        rest = [(b"b0", b"2000"), (b"b1", b"1000")]
        count, asked = drive(plans.clear_range(b"a", b"b", now), [page], [rest])
        assert count == plans.PACKET_ROWS + 1, "what had expired does not count"
        assert isinstance(asked[1][0], DeleteRange)
        assert (asked[1][0].start, asked[1][0].after) == (b"a0999", True)

    def test_clear_raises_errors(self) -> None:
        with pytest.raises(LockTimeoutError):
            drive(plans.clear_range(b"a", None, now), [LOCKED])


def rows(count: int, size: int = 1) -> list[Row]:
    return [Row(b"%d" % n, b"x" * size, 0, Kind.BYTES, n, 5_000) for n in range(count)]


class TestSetRows:
    def test_nothing_sends_nothing(self) -> None:
        with pytest.raises(StopIteration):
            next(plans.set_rows([], Progress()))

    def test_rows_that_exist_take_one_packet(self) -> None:
        progress = Progress()
        drive(plans.set_rows(rows(3), progress), [1, 1, 1])
        assert progress.stored == {0, 1, 2}
        assert not progress.sent

    def test_what_the_updates_missed_is_inserted(self) -> None:
        progress = Progress()
        _, asked = drive(plans.set_rows(rows(3), progress), [1, 0, 0], [True, True])
        assert asked[1] == [Inserts(rows(3)[1:])]
        assert progress.stored == {0, 1, 2}

    def test_what_others_made_in_between_is_set_alone(self) -> None:
        progress = Progress()
        drive(plans.set_rows(rows(2), progress), [0, 0], [DUPLICATE, True], [1])
        assert progress.stored == {0, 1}

    def test_packets_are_cut_by_number(self) -> None:
        packets = list(plans.packets(rows(plans.PACKET_ROWS + 1)))
        assert [len(packet) for packet in packets] == [plans.PACKET_ROWS, 1]

    def test_packets_are_cut_by_bytes(self) -> None:
        packets = list(plans.packets(rows(3, plans.PACKET_BYTES // 2)))
        assert [len(packet) for packet in packets] == [1, 1, 1]

    def test_a_key_stands_once_in_a_packet(self) -> None:
        same = [Row(b"k", value, 0, Kind.BYTES, 1, 5_000) for value in (b"1", b"2")]
        assert list(plans.packets(same)) == [same[:1], same[1:]]

    def test_packets_are_made_when_they_are_asked_for(self) -> None:
        endless = (row for _ in iter(int, 1) for row in rows(700))
        assert len(next(plans.packets(endless))) == 700

    def test_no_rows_are_no_packets(self) -> None:
        assert list(plans.packets([])) == []

    def test_an_error_tells_what_was_stored(self) -> None:
        progress = Progress()
        with pytest.raises(OperationalError, match="full"):
            drive(plans.set_rows(rows(3), progress), [1, FULL, LOCKED])
        assert progress.stored == {0}
        assert not progress.sent

    def test_a_packet_under_way_is_known(self) -> None:
        progress = Progress()
        plan = plans.set_rows(rows(3), progress)
        next(plan)
        assert progress.sent == {0, 1, 2}
        plan.send([1, 1, 0])
        assert progress.sent == {2}
        plan.close()
        assert progress.stored == {0, 1}


def test_a_delete_returns_nothing_unless_asked() -> None:
    assert Delete((b"k",)).returning == ()
