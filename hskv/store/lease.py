"""Leases: locks that end by themselves when their holder dies.

A lease is a row: its owner's random token in `version`, its end in `expires`. Locks:
`Lease._lock` guards what this process believes of the lease; it is never held across I/O.
"""

import logging
import math
import os
import random
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic, sleep
from types import TracebackType
from typing import Final, NamedTuple, Self, cast

from ..exceptions import (
    DuplicateKeyError,
    HandlerSocketError,
    LeaseLostError,
    LeaseTimeoutError,
    OperationalError,
    OutcomeUnknownError,
)
from ..transport.fork import renew_after_fork
from .expiry import checked, expires_ms, now_ms
from .mapped import Executor
from .values import Kind
from .verbs import Add, Column, Condition, Delete, Find, Found, Insert, Outcome, Row, Update, Verb

_log = logging.getLogger("hskv")

_TOKEN_BITS: Final = 62
# Twice before it ends, so that one lost renewal does not end it.
_RENEWALS_PER_TTL: Final = 3
_SHORTEST_PAUSE_SECONDS: Final = 0.001


class _Held(NamedTuple):
    """What the holder knows: its token, until when to trust it (monotonic), its number."""

    token: int
    until: float
    fence: int | None


class Lease:
    """An exclusive right of one holder among all processes, for at most `ttl` seconds.

    Made by `KeyValueStore.lease`. Whoever acquires it holds it until it is released or ends: a
    holder that dies delays others by `ttl` plus `max_skew` at most. Each `Lease` is a holder of
    its own; the threads that share one share what it holds, and any of them may release it. A
    holder that was stalled past the end finds it lost; where that is not enough, `fence` gives a
    number that grows with each holder, for the guarded thing to refuse older ones.

    A forked child holds nothing that its parent acquired. Clocks of clients must agree to
    `max_skew` seconds, by which a takeover waits longer.

    >>> lease, other = store.lease("report", ttl=5, fence=True), store.lease("report", fence=True)
    >>> lease.acquire(), other.acquire(wait=False), lease.fence
    (True, False, 1)
    >>> lease.release()
    >>> other.acquire(wait=False), other.fence
    (True, 2)
    """

    def __init__(
        self,
        executor: Executor,
        row_key: bytes,
        ttl: float,
        *,
        clock: Callable[[], float],
        max_skew: float = 1.0,
        renew: bool = False,
        fence: bool = False,
        poll: float = 0.1,
        wait: bool | float = True,
    ) -> None:
        self._executor = executor
        self._row_key = row_key
        self.ttl = checked_ttl(ttl)
        if not 0 <= max_skew < math.inf or not 0 < poll < math.inf:
            raise ValueError("max_skew and poll are seconds, not negative, poll above zero")
        self._clock = clock
        self._skew_ms = math.ceil(max_skew * 1000)
        self._renews = renew
        self._fenced = fence
        self._poll = poll
        checked_wait(wait)
        self._wait = wait
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a child: the lease is its parent's, if anybody's."""
        self._lock = threading.RLock()
        self._held: _Held | None = None
        self._stop = threading.Event()

    def __repr__(self) -> str:
        return f"<Lease {self._row_key!r}, {'held' if self.held else 'not held'}>"

    def __enter__(self) -> Self:
        if not self.acquire():
            raise LeaseTimeoutError(
                f"another holds the lease, and {self._wait!r} is how long to wait: nothing was "
                "done under it; try later, or give more wait="
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.release()
        except (HandlerSocketError, RuntimeError):
            # What went wrong inside matters more than that the lease is gone.
            if error is None:
                raise
            _log.warning("a lease could not be released after %r", error, exc_info=True)

    @property
    def held(self) -> bool:
        """True while this holder may trust the lease, by its monotonic clock. No I/O."""
        held = self._held
        return held is not None and monotonic() < held.until

    @property
    def token(self) -> int | None:
        """The random number that is the owner's, while it is held."""
        return self._held.token if self._held else None

    @property
    def fence(self) -> int | None:
        """The number of this turn, larger than all before; None without `fence=True`."""
        return self._held.fence if self._held else None

    def acquire(self, wait: bool | float | None = None) -> bool:
        """Take the lease; False when another holds it still.

        Waits for ever (True), not at all (False), or for so many seconds; unless told, as the lease
        was made to. One round trip when it is free. Atomic. Raises OutcomeUnknownError when the
        reply was lost: the lease is given back then as far as that can be, and blocks others no
        longer than `ttl`.
        """
        deadline = monotonic() + checked_wait(self._wait if wait is None else wait)
        while True:
            held = self._try()
            if held:
                self._begin(held)
                return True
            if monotonic() >= deadline or not self._is_over_before(deadline):
                return False

    def release(self) -> None:
        """Give the lease back, from any thread. One round trip; repeated when its reply is lost.

        Raises LeaseLostError when another has it by now, RuntimeError when it is not held.
        """
        with self._lock:
            held, self._held = self._held, None
            self._stop.set()
        if held is None:
            raise RuntimeError("this lease is not held: acquire it first")
        if not self._release(held):
            raise LeaseLostError(
                "the lease ended and another took it over before it was released: what was done "
                "meanwhile was not exclusive; raise ttl, or renew=True"
            )

    def extend(self, ttl: float | None = None) -> None:
        """Hold on for `ttl` seconds from now at least, its own ttl unless given. One round trip.

        Never ends it sooner: an extension that comes late to the server undoes no later one.
        Raises LeaseLostError when another has it by now, RuntimeError when it is not held.
        """
        seconds = self.ttl if ttl is None else checked_ttl(ttl)
        held = self._held
        if held is None:
            raise RuntimeError("this lease is not held: acquire it first")
        until = monotonic() + seconds
        expires = expires_ms(self._clock, seconds)
        owned = _owned(held.token)
        sooner = (*owned, Condition("expires", "<", expires))
        verbs: list[Verb] = [
            Update(self._row_key, sooner, ("expires",), (expires,)),
            Find((self._row_key,), ("expires",), owned),
        ]
        is_there = bool(self._twice(verbs)[1])
        with self._lock:
            if self._held is None or self._held.token != held.token:
                raise RuntimeError("this lease was released while it was extended")
            trusted = max(until, self._held.until) if is_there else -math.inf
            self._held = held._replace(until=trusted)
        if not is_there:
            raise LeaseLostError("the lease ended and another took it over")

    def locked(self) -> bool:
        """Does anybody hold it now, this one or another? One round trip, to the read port."""
        return self._ends_ms() > now_ms(self._clock)

    def _try(self) -> _Held | None:
        token = int.from_bytes(os.urandom(8), "big") >> (64 - _TOKEN_BITS) or 1
        began = monotonic()
        at = now_ms(self._clock)
        expires = expires_ms(self._clock, self.ttl)
        try:
            outcomes = self._executor.execute(self._attempt(token, at - self._skew_ms, expires))
        except OutcomeUnknownError:
            with suppress(HandlerSocketError):
                self._executor.execute([self._freed(token)])
            raise
        # That there is a row already is what the second verb is for.
        _raise_errors(outcomes[isinstance(outcomes[0], DuplicateKeyError) :])
        fence = None
        if self._fenced:
            rows = cast(Found, outcomes[2])
            if not rows:
                return None
            fence = int(rows[0][0]) + 1
        elif outcomes[0] is not True and outcomes[1] != 1:
            return None
        return _Held(token, began + self.ttl, fence)

    def _attempt(self, token: int, ended: int, expires: int) -> list[Verb]:
        """Insert the row, or take over one that ended; at most one of them applies.

        With a fence the row is made or taken over as a free one, which the last verb takes.
        """
        over = (Condition("expires", "<=", ended),)
        version, end = (0, 0) if self._fenced else (token, expires)
        verbs: list[Verb] = [
            Insert(Row(self._row_key, b"", 0, Kind.LEASE, version, end)),
            Update(self._row_key, over, ("version", "expires"), (version, end)),
        ]
        if self._fenced:
            free = (Condition("expires", "=", 0), Condition("version", "=", 0))
            columns: tuple[Column, ...] = ("number", "version", "expires")
            verbs.append(Add(self._row_key, free, columns, (1, token, expires)))
        return verbs

    def _freed(self, token: int) -> Verb:
        if self._fenced:
            return Update(self._row_key, _owned(token), ("version", "expires"), (0, 0))
        return Delete((self._row_key,), _owned(token))

    def _release(self, held: _Held) -> bool:
        """Free the own row; True where it was there."""
        verb = self._freed(held.token)
        try:
            outcomes = self._executor.execute([verb])
        except OutcomeUnknownError:
            outcomes = self._executor.execute([verb])
            if outcomes[0] == 0 and monotonic() < held.until:
                # Nobody else could take it: it was the first attempt that did it.
                return True
        _raise_errors(outcomes)
        return outcomes[0] == 1

    def _twice(self, verbs: Sequence[Verb]) -> Sequence[Outcome]:
        """Carry out verbs of which doing them twice is the same as once."""
        try:
            outcomes = self._executor.execute(verbs)
        except OutcomeUnknownError:
            outcomes = self._executor.execute(verbs)
        _raise_errors(outcomes)
        return outcomes

    def _is_over_before(self, deadline: float) -> bool:
        """Wait until another may have it; False where the deadline passes first.

        Asks the read port: the write port has one thread for all that write.
        """
        while True:
            left = self._seconds_left()
            patience = deadline - monotonic()
            if patience <= 0:
                return left <= 0
            # At least a moment, since another may have been first where it is free.
            pause = max(min(self._poll * random.uniform(0.5, 1.5), left), _SHORTEST_PAUSE_SECONDS)
            pause = min(pause, patience)
            sleep(pause)
            if left <= pause:
                return True

    def _seconds_left(self) -> float:
        """Seconds until another may take it over; none or less where it is free."""
        return (self._ends_ms() + self._skew_ms - now_ms(self._clock)) / 1000

    def _ends_ms(self) -> int:
        (outcome,) = self._executor.execute([Find((self._row_key,), ("expires",))])
        _raise_errors([outcome])
        rows = cast(Found, outcome)
        return int(rows[0][0]) if rows else 0

    def _begin(self, held: _Held) -> None:
        with self._lock:
            self._held = held
            self._stop = stop = threading.Event()
        if self._renews:
            threading.Thread(
                target=_renew,
                args=(weakref.ref(self), held.token, stop, self.ttl / _RENEWALS_PER_TTL),
                name="hskv-lease-renewal",
                daemon=True,
            ).start()


def _renew(lease: "weakref.ref[Lease]", token: int, stop: threading.Event, interval: float) -> None:
    """Extend a lease until it is released, lost, or nobody refers to it any more."""
    while not stop.wait(interval):
        holder = lease()
        if holder is None or holder.token != token:
            return
        try:
            holder.extend()
        except LeaseLostError:
            _log.warning("%r was lost: another took it over", holder)
            return
        except RuntimeError:
            return
        except HandlerSocketError:
            _log.warning("%r could not be renewed; it is tried again", holder, exc_info=True)
        # Else this thread alone would keep it alive.
        del holder


def checked_ttl(ttl: float) -> float:
    """The seconds of a lease's ttl. Raises TypeError or ValueError for what is none."""
    seconds = checked(ttl)
    if seconds is None:
        raise ValueError("a lease ends: its ttl is a number of seconds")
    return seconds


def checked_wait(wait: bool | float) -> float:
    """The seconds to wait: True is for ever, False not at all. Raises ValueError for none."""
    seconds = math.inf if wait is True else float(wait)
    if not seconds >= 0:
        raise ValueError(f"wait is True, False or a number of seconds, not {wait!r}")
    return seconds


def _owned(token: int) -> tuple[Condition, ...]:
    return (Condition("version", "=", token),)


def _raise_errors(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, OperationalError):
            raise outcome
