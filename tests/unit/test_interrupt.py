"""Which exception is a signal handler's: told by the frame that it was given."""

import errno
import signal
import socket
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

import pytest

from hskv.exceptions import LeaseLostError, LockTimeoutError, ProtocolError
from hskv.transport.interrupt import is_interrupt, raise_interrupt
from hskv.transport.sql_socket import DeadlineSocket, OutOfTimeError

Handler = Callable[[int, FrameType | None], None]


def fail(error: BaseException) -> NoReturn:
    raise error


class Alarm:
    """Fails as a method."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        deeper(frame)


def deeper(frame: FrameType | None) -> None:
    raise TimeoutError("the alarm")


def deletes(number: int, frame: FrameType | None) -> None:
    del frame
    raise TimeoutError("the alarm")


@pytest.fixture
def caught() -> Iterator[Callable[[Handler], BaseException]]:
    """What comes out of where a signal arrives that a handler is for."""
    before = signal.getsignal(signal.SIGUSR1)

    def catch(handler: Handler) -> BaseException:
        signal.signal(signal.SIGUSR1, handler)
        try:
            signal.raise_signal(signal.SIGUSR1)
        except BaseException as error:  # noqa: BLE001 that is what is looked at
            return error
        raise AssertionError("the handler raised nothing")

    yield catch
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize(
    "handler", [Alarm(), Alarm().__call__, lambda *_: fail(TimeoutError("the alarm"))]
)
def test_what_a_handler_raises_is_its_own(
    caught: Callable[[Handler], BaseException], handler: Handler
) -> None:
    error = caught(handler)
    assert is_interrupt(error)
    with pytest.raises(TimeoutError) as raised:
        raise_interrupt(error)
    assert raised.value is error


def test_what_others_raise_is_not(caught: Callable[[Handler], BaseException]) -> None:
    raise_interrupt(None)
    for call in (lambda: fail(TimeoutError()), lambda: deeper(None), lambda: int("x")):
        with pytest.raises((TimeoutError, ValueError)) as raised:
            call()
        assert not is_interrupt(raised.value)
        raise_interrupt(raised.value)
    assert not is_interrupt(caught(deletes)), "its frame is what it is known by"


def test_the_fate_of_another_request_is_not_that_of_the_one_it_interrupts(
    caught: Callable[[Handler], BaseException],
) -> None:
    error = caught(lambda *_: fail(LockTimeoutError("of another row")))
    with pytest.raises(ProtocolError, match="signal handler failed in mid-request: of another row"):
        raise_interrupt(error)
    lost = caught(lambda *_: fail(LeaseLostError("the leader's")))
    with pytest.raises(LeaseLostError):
        raise_interrupt(lost)


@pytest.mark.parametrize(
    ("error", "seconds", "kind"),
    [
        (TimeoutError("timed out"), -1.0, OutOfTimeError),
        (TimeoutError("timed out"), 60.0, TimeoutError),
        (TimeoutError(errno.ETIMEDOUT, "the kernel's"), -1.0, TimeoutError),
    ],
)
def test_a_send_was_out_of_time_only_at_its_deadline(
    monkeypatch: pytest.MonkeyPatch, error: TimeoutError, seconds: float, kind: type[Exception]
) -> None:
    with DeadlineSocket() as sock:
        sock.deadline = time.monotonic() + 60.0

        def send(*_: object) -> NoReturn:
            sock.deadline = time.monotonic() + seconds
            raise error

        monkeypatch.setattr(socket.socket, "sendall", send)
        with pytest.raises(TimeoutError) as raised:
            sock.sendall(b"")
        assert type(raised.value) is kind
