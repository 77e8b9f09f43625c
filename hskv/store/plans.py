"""Operations of more than one verb, as generators without I/O.

A plan yields a list of verbs to be sent in one packet, receives the list of their outcomes,
and returns the result of the operation. Other clients may come in between any two verbs, those
of one packet included, since a packet may be split on its way. Each plan stays exact under
that. `now` gives the milliseconds since the epoch, rounded down.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar, cast

from ..exceptions import (
    ContentionError,
    DuplicateKeyError,
    OperationalError,
    SerializationError,
)
from ..wire.requests import INT64_MAX, INT64_MIN
from .values import Kind
from .verbs import (
    Add,
    Cells,
    Column,
    Condition,
    Delete,
    DeleteRange,
    Find,
    Found,
    Insert,
    Inserts,
    Outcome,
    Row,
    Update,
    Updates,
    Verb,
    Where,
    dead,
    live,
)

ROUNDS: Final = 16
"""A plan that other clients upset this often gives up with ContentionError."""
PACKET_ROWS: Final = 1000
PACKET_BYTES: Final = 1 << 20


class Readable(NamedTuple):
    """Which rows a store can read: what rows must be, and whether it reads a kind."""

    where: Where
    reads: Callable[[int], bool]

    def check(self, rows: Found) -> None:
        """Raise SerializationError when the kind in the last column cannot be read."""
        if rows and not self.reads(int(rows[0][-1])):
            raise SerializationError(
                f"a row of kind {int(rows[0][-1])} cannot be read by this store; it was left"
            )


Result = TypeVar("Result")
Plan = Generator[list[Verb], list[Outcome], Result]
Clock = Callable[[], int]


def set_row(row: Row, *, missing: bool = False) -> Plan[None]:
    """Store a row, whatever was there; `missing`: an update has just found none.

    Each request that can apply the row is sent alone, so it is applied exactly once: an insert
    and an update in one packet could both apply it, and the second would undo what another
    client did in between.
    """
    duplicate: OperationalError | None = None
    for _ in range(ROUNDS):
        if not missing:
            (updated,) = yield [Update(row.key, (), *row.changes())]
            if good(updated):
                return
        missing = False
        (inserted,) = yield [Insert(row)]
        if not isinstance(inserted, DuplicateKeyError):
            good(inserted)
            return
        duplicate = inserted
    # Duplicate, and yet never there: then another unique index of the table refuses the row.
    (rows,) = yield [Find((row.key,), ("kind",))]
    if duplicate and not found(rows):
        raise duplicate
    raise contention()


def add_row(row: Row, now: Clock) -> Plan[bool]:
    """Store a row where none is alive; False where one is."""
    return (yield from default_row(row, now, ("kind",))) is None


def default_row(
    row: Row, now: Clock, columns: tuple[Column, ...]
) -> Plan[tuple[bytes, ...] | None]:
    """Store a row where none is alive, and give None; else the columns of the one that is.

    At most one of insert and update applies: the insert makes a row that is alive, which the
    update, asking for a dead one at the same instant, passes over.
    """
    for _ in range(ROUNDS):
        at = now()
        outcomes = yield _take_over(row, at, columns)
        if _took(outcomes):
            return None
        rows = found(outcomes[2])
        if rows:
            return rows[0]
    raise contention()


def keep_row(row: Row, now: Clock) -> Plan[None]:
    """Store a row; one that is alive keeps its expiry."""
    for _ in range(ROUNDS):
        at = now()
        (updated,) = yield [Update(row.key, live(at), *row.content())]
        if good(updated):
            return
        outcomes = yield _take_over(row, at, ("kind",))
        if _took(outcomes):
            return
        good(outcomes[2])
    raise contention()


class Exchanged(NamedTuple):
    """The (value, number, kind) of the live row that was there before, if any."""

    old: tuple[bytes, ...] | None


def swap_row(row: Row, readable: Readable, now: Clock, *, keep: bool) -> Plan[Exchanged]:
    """Store a row and give the live one that it replaces, whose expiry it may keep.

    One round trip on a live row, two else. Raises SerializationError for a row that the store
    cannot read, and leaves it.
    """
    columns, cells = row.content() if keep else row.changes()
    for _ in range(ROUNDS):
        at = now()
        where = (*live(at), *readable.where)
        (exchanged,) = yield [Update(row.key, where, columns, cells, returning=True)]
        if rows := found(exchanged):
            before = dict(zip(columns, rows[0], strict=True))
            return Exchanged((before["value"], before["number"], before["kind"]))
        outcomes = yield _take_over(row, at, ("kind",))
        if _took(outcomes):
            return Exchanged(None)
        readable.check(found(outcomes[2]))
    raise contention()


class Bounds(NamedTuple):
    """How far an increment may go: a counter is held back only in the direction it moves."""

    floor: int = INT64_MIN
    ceiling: int = INT64_MAX

    def admit(self, number: int, amount: int) -> bool:
        """True when a counter may become `number` by adding `amount`."""
        return number <= self.ceiling if amount >= 0 else number >= self.floor

    def furthest(self, amount: int) -> tuple[str, int] | None:
        """How the counter must compare for `amount` to be admitted; None where nothing would do.

        The server cuts an operand to 64 bits, and would take a bound beyond them for met.
        """
        furthest = self.ceiling - amount if amount >= 0 else self.floor - amount
        if not INT64_MIN <= furthest <= INT64_MAX:
            return None
        return "<=" if amount >= 0 else ">=", furthest


UNBOUNDED: Final = Bounds()


def increment(
    row: Row, amount: int, bounds: Bounds, now: Clock, tried: int | None = None
) -> Plan[int | None]:
    """Add to a live integer, or store `row`, whose number is the first value.

    `tried` is when an addition has just found none.

    The new value; None where `bounds` refuse it (then nothing changed). Raises TypeError on a
    live row of another kind, OverflowError past 64 bits. One round trip on a live integer.
    """
    furthest = bounds.furthest(amount)
    for _ in range(ROUNDS):
        at = now() if tried is None else tried
        if furthest and tried is None:
            integer, within = Condition("kind", "=", Kind.INTEGER), Condition("number", *furthest)
            where = (integer, *live(at), within)
            (added,) = yield [Add(row.key, where, ("number", "version"), (amount, 1))]
            if rows := found(added):
                return int(rows[0][0]) + amount
        tried = None
        if bounds.admit(row.number, amount):
            outcomes = yield _take_over(row, at, ("kind", "number"))
            if _took(outcomes):
                return row.number
        else:
            outcomes = yield [Find((row.key,), ("kind", "number"), live(at))]
        number = _counter(found(outcomes[-1]))
        reached = row.number if number is None else number + amount
        if not bounds.admit(reached, amount):
            _check_int64(reached)
            return None
    raise contention()


def _counter(rows: Found) -> int | None:
    if not rows:
        return None
    kind, number = rows[0]
    if int(kind) != Kind.INTEGER:
        raise TypeError("the value is no integer of 64 bits; only those can be counted")
    return int(number)


def _check_int64(number: int) -> None:
    if not INT64_MIN <= number <= INT64_MAX:
        raise OverflowError(f"the counter would be {number}, beyond 64 bits; nothing was changed")


def take_row(
    key: bytes, columns: tuple[Column, ...], readable: Readable, now: Clock
) -> Plan[tuple[bytes, ...] | None]:
    """Remove a live row and give it; None where there is none.

    Raises SerializationError for a row that the store cannot read, and leaves it.
    """
    for _ in range(ROUNDS):
        at = now()
        (taken,) = yield [Delete((key,), (*live(at), *readable.where), returning=columns)]
        if rows := found(taken):
            return rows[0]
        (left,) = yield [Find((key,), ("kind",), live(at))]
        if not (rows := found(left)):
            return None
        readable.check(rows)
    raise contention()


def take_first(
    start: bytes,
    end: bytes | None,
    columns: tuple[Column, ...],
    readable: Readable,
    now: Clock,
) -> Plan[tuple[bytes, ...] | None]:
    """Remove the first live row of a range in key order and give it; None where there is none.

    Rows that the store cannot read are passed over.

    Expired rows that lie in front are removed in the same packet: the next caller would
    have to step over them again, each locked on the way.
    """
    at = now()
    swept, taken = yield [
        DeleteRange(start, end, PACKET_ROWS, while_=dead(at)),
        DeleteRange(start, end, 1, where=(*live(at), *readable.where), returning=columns),
    ]
    good(swept)
    rows = found(taken)
    return rows[0] if rows else None


def clear_range(start: bytes, end: bytes | None, now: Clock) -> Plan[int]:
    """Remove every row of a range in key order; how many were alive. Rows added behind it stay."""
    count, after = 0, False
    while True:
        at = now()
        columns: tuple[Column, ...] = ("key", "expires")
        (removed,) = yield [DeleteRange(start, end, PACKET_ROWS, returning=columns, after=after)]
        rows = found(removed)
        count += sum(int(expires) > at for _, expires in rows)
        if len(rows) < PACKET_ROWS:
            return count
        start, after = rows[-1][0], True


class Progress:
    """How far a batch got: rows stored, rows in a packet that was sent, by position."""

    def __init__(self) -> None:
        self.stored: set[int] = set()
        self.sent: set[int] = set()


def packets(rows: Iterable[Cells]) -> Iterator[list[Cells]]:
    """The rows in packets, cut by number and by bytes, each made when it is asked for."""
    packet: dict[bytes, Cells] = {}
    size = 0
    for row in rows:
        key = row[0]
        size += len(key) + len(row[1])
        # A key stands once in a packet: which of two values came last would be left to chance.
        if size > PACKET_BYTES or key in packet or len(packet) >= PACKET_ROWS:
            if packet:
                yield list(packet.values())
            packet, size = {}, len(key) + len(row[1])
        packet[key] = row
    if packet:
        yield list(packet.values())


def set_rows(packet: Sequence[Cells], progress: Progress) -> Plan[None]:
    """Store a packet of rows, as `set_row` does each: updates first, then inserts for the rest."""
    missed = yield from _stored(list(range(len(packet))), packet, progress, insert=False)
    missed = yield from _stored(missed, packet, progress, insert=True)
    for position in missed:
        progress.sent = {position}
        yield from set_row(Row(*packet[position]))
        progress.stored.add(position)
    progress.sent = set()


def _stored(
    positions: list[int], rows: Sequence[Cells], progress: Progress, *, insert: bool
) -> Plan[list[int]]:
    """Send one request for each row; the positions of those that did not apply."""
    if not positions:
        return []
    chosen = rows if len(positions) == len(rows) else [rows[position] for position in positions]
    progress.sent = set(positions)
    outcomes = yield [Inserts(chosen) if insert else Updates(chosen)]
    missed, error = [], None
    progress.sent = set()
    if outcomes.count(1) == len(positions):
        progress.stored.update(positions)
        return []
    for position, outcome in zip(positions, outcomes, strict=True):
        if isinstance(outcome, DuplicateKeyError) or outcome == 0:
            missed.append(position)
        elif isinstance(outcome, OperationalError):
            error = error or outcome
        else:
            progress.stored.add(position)
    if error:
        raise error
    return missed


def _take_over(row: Row, at: int, columns: tuple[Column, ...]) -> list[Verb]:
    return [
        Insert(row),
        Update(row.key, dead(at), *row.changes()),
        Find((row.key,), columns, live(at)),
    ]


def _took(outcomes: Sequence[Outcome]) -> bool:
    inserted, updated, _ = outcomes
    if inserted is True or updated == 1:
        return True
    if not isinstance(inserted, DuplicateKeyError):
        good(inserted)
    good(updated)
    return False


def good(outcome: Outcome) -> Outcome:
    """An outcome that is no error; raises it where it is."""
    if isinstance(outcome, OperationalError):
        raise outcome
    return outcome


def found(outcome: Outcome) -> Found:
    """The rows of an outcome; raises it where it is an error."""
    return cast(Found, good(outcome))


def contention() -> ContentionError:
    """What a plan raises that other clients upset in each round."""
    return ContentionError(
        f"other clients changed this key in each of {ROUNDS} rounds; nothing was changed: try again"
    )
