"""Which of several servers may be read from: each is asked again and again, by a thread of its own.

Locks: `Health._news`, a condition, guards the verdicts; never held while a server is asked.

The threads begin with the first request, are daemons, and end with the client, or when nobody has
sent a request for a minute; what a server said is trusted no longer than it is asked. A forked
child has none, knows nothing, and begins anew. Under gevent they are greenlets.
"""

import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Final

from ..exceptions import ConnectionError
from .address import Settings
from .checkup import Checkup, Examiner
from .fork import renew_after_fork
from .pairs import sql_ports
from .sql_channel import SqlChannel

_log = logging.getLogger("hskv")

_EVERY_SECONDS: Final = 1.0
# While none is well, and requests wait for one.
_SOON_SECONDS: Final = 0.2
# What a process knew before it was suspended is out of date.
_TRUSTED_SECONDS: Final = 10.0
_UNUSED_SECONDS: Final = 60.0
_CONNECTION_LIFETIME_SECONDS: Final = 3600.0
_NOT_ASKED: Final = Checkup("it has not answered by SQL yet")
# Which servers are well, by their places, and until when that is trusted.
_NOTHING: Final[tuple[tuple[int, ...], float]] = ((), float("-inf"))


class _Patient:
    """A server, who asks it now, and what it last said."""

    def __init__(self, name: str, new_examiner: Callable[[], Examiner]) -> None:
        self.name = name
        self.new_examiner = new_examiner
        self.forget()

    def forget(self) -> None:
        # Of the thread that asks it, and of no other.
        self.examiner: Examiner | None = None
        self.checkup = _NOT_ASKED
        self.trusted_until = float("-inf")


class Health:
    """Knows which servers may be read from, without asking any when a request is sent.

    `servers` are their names, each with what makes a new `Examiner` of it. A request waits for up
    to `timeout` seconds until at least one is known to be well: the first one of a process does.
    """

    def __init__(
        self, servers: Sequence[tuple[str, Callable[[], Examiner]]], timeout: float
    ) -> None:
        self._patients = [_Patient(name, examiner) for name, examiner in servers]
        self._timeout = timeout
        self._closed = threading.Event()
        self.after_fork()
        renew_after_fork(self)

    def __repr__(self) -> str:
        return f"<Health, {len(self._known[0])} of {len(self._patients)} servers well>"

    def well(self, now: float) -> tuple[int, ...]:
        """The places of the servers that may be read from, at a time of `monotonic`.

        Raises ConnectionError, with the troubles of all, where there is none.
        """
        self._used = now
        places, until = self._known
        if now < until:
            return places
        return self._first_known(now)

    def primaries(self, now: float) -> tuple[int, ...]:
        """Of those, the ones that take writes. Empty where there is none; raises as `well`."""
        return tuple(number for number in self.well(now) if self._patients[number].checkup.primary)

    def troubles(self) -> dict[str, str]:
        """Why each of the others is not read from, by name; as far as it is known."""
        now = monotonic()
        with self._news:
            well = self._decide(now)
            return {
                one.name: one.checkup.trouble or "it has not answered by SQL any more"
                for number, one in enumerate(self._patients)
                if number not in well
            }

    def close(self) -> None:
        """Ask no more. Idempotent."""
        self._closed.set()
        with self._news:
            self._known = _NOTHING
            self._news.notify_all()

    def after_fork(self) -> None:
        """In a child: the threads are the parent's, and so is what they learned."""
        self._news = threading.Condition()
        # A thread that did not come along may have had its lock.
        was, self._closed = self._closed, threading.Event()
        if was.is_set():
            self._closed.set()
        # One attribute, since requests read it without the lock.
        self._known = _NOTHING
        self._used = monotonic()
        for patient in self._patients:
            patient.forget()

    def _first_known(self, now: float) -> tuple[int, ...]:
        # Of a closed one their pools say so.
        all_places = tuple(range(len(self._patients)))
        if self._closed.is_set():
            return all_places
        deadline = now + self._timeout
        self._watch()
        with self._news:
            well = self._decide(now)
            while not well and any(one.trusted_until <= now for one in self._patients):
                if self._closed.is_set() or not self._news.wait(deadline - monotonic()):
                    break
                well = self._known[0]
            if self._closed.is_set():
                return all_places
            if well:
                return well
        troubles = "; ".join(f"{name}: {trouble}" for name, trouble in self.troubles().items())
        raise ConnectionError(f"no server may be read from; by SQL, {troubles}")

    def _decide(self, now: float) -> tuple[int, ...]:
        """Go by what is known now: the places of those that are well; the lock is held."""
        well = [
            (number, one)
            for number, one in enumerate(self._patients)
            if one.checkup.trouble is None and now < one.trusted_until
        ]
        places = tuple(number for number, _ in well)
        if places == self._known[0]:
            # The same object, by which it is seen that nothing has changed.
            places = self._known[0]
        self._known = places, min((one.trusted_until for _, one in well), default=float("-inf"))
        return places

    def _watch(self) -> None:
        """Begin to ask the servers that are not asked. Raises RuntimeError for want of threads."""
        with self._news:
            for patient in self._patients:
                if patient.examiner is not None:
                    continue
                patient.examiner = examiner = patient.new_examiner()
                try:
                    self._thread(patient, examiner).start()
                except BaseException:
                    self._end(patient, examiner)
                    raise

    def _thread(self, patient: _Patient, examiner: Examiner) -> threading.Thread:
        return threading.Thread(
            target=_ask_until_unused,
            args=(weakref.ref(self), patient, examiner, self._closed),
            name=f"hskv health of {patient.name}",
            daemon=True,
        )

    def _ask(self, patient: _Patient, examiner: Examiner) -> bool:
        """Ask a server once, and tell; False when nobody wants to know any more."""
        with self._news:
            if self._closed.is_set() or monotonic() >= self._used + _UNUSED_SECONDS:
                # Together with the look, so that the next request finds that nobody asks it.
                self._end(patient, examiner)
            if patient.examiner is not examiner:
                return False
        # Those who cannot begin now may when this comes round again.
        with suppress(RuntimeError):
            self._watch()
        checkup = examiner()
        now = monotonic()
        with self._news:
            # A greenlet lives on in a forked child, which has begun anew.
            if patient.examiner is not examiner:
                return False
            before = patient.checkup.trouble
            patient.checkup, patient.trusted_until = checkup, now + _TRUSTED_SECONDS
            self._decide(now)
            self._news.notify_all()
        if checkup.trouble != before:
            _tell(patient.name, before, checkup.trouble)
        return True

    def _end(self, patient: _Patient, examiner: Examiner) -> None:
        """A server is not asked any more, and so not trusted; idempotent."""
        with self._news:
            if patient.examiner is examiner:
                patient.examiner, patient.trusted_until = None, float("-inf")
                self._decide(monotonic())
                self._news.notify_all()


def _ask_until_unused(
    health: "weakref.ref[Health]",
    patient: _Patient,
    examiner: Examiner,
    closed: threading.Event,
) -> None:
    try:
        while (still := health()) is not None and still._ask(patient, examiner):
            seconds = _EVERY_SECONDS if still._known[0] else _SOON_SECONDS
            # Not kept alive by this thread.
            del still
            closed.wait(seconds)
    finally:
        # Whatever ended it.
        if (still := health()) is not None:
            still._end(patient, examiner)
        examiner.close()


def _tell(name: str, before: str | None, trouble: str | None) -> None:
    if trouble is not None:
        _log.warning("%s is not read from: %s", name, trouble)
    elif before != _NOT_ASKED.trouble:
        _log.info("%s may be read from again", name)


def health_of(settings: Settings) -> Health | None:
    """What asks the servers that settings name, None where there is no choice or no SQL.

    Raises ValueError for a listener whose SQL port is not named.
    """
    servers = examiners(settings)
    return Health(servers, settings.timeout) if servers else None


def examiners(settings: Settings) -> list[tuple[str, Callable[[], Examiner]]]:
    """The servers that are read from, where there is a choice, and what makes their examiners.

    Raises ValueError for a listener whose SQL port is not named.
    """
    login = settings.sql
    if login is None:
        return []
    # By SQL alone the ports of SQL are read from.
    listeners = settings.readers or login.hosts
    servers: list[tuple[str, Callable[[], Examiner]]] = []
    examiner = partial(Examiner, by_handlersocket=bool(settings.readers))
    for listener, port in zip(listeners, sql_ports(listeners, login.hosts), strict=True):
        if port is None:
            raise ValueError(
                f"{listener} is to be read from, but sql= names no port on its host, by which to "
                "ask how it is: sql= has the SQL ports of all servers, with each host written as "
                "it is before"
            )
        connect = partial(
            SqlChannel,
            port,
            login,
            connect_timeout=settings.connect_timeout,
            timeout=settings.connect_timeout,
            lifetime=_CONNECTION_LIFETIME_SECONDS,
        )
        servers.append((str(listener), partial(examiner, connect, settings.max_lag)))
    return servers if len(listeners) > 1 or len(login.hosts) > 1 else []
