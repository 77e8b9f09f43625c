"""Tells what a signal handler raised from what the socket did. Locks: none.

A handler runs in the midst of whatever the main thread does, and what it raises comes out of
there: the TimeoutError of an alarm looks like one of the socket, but the request may be sent.
A handler is known by the frame that it is given, unless it deletes that.
"""

from types import FrameType

from ..exceptions import ConnectionError, OperationalError, ProtocolError


def raise_interrupt(error: BaseException | None) -> None:
    """Raise an exception that was caught if a signal handler raised it, in the midst of ours.

    An error of a server is of another request then, the handler's, and must not count as that of
    the one it interrupted, and perhaps have it sent again: it becomes a ProtocolError.
    """
    if error is None or not is_interrupt(error):
        return
    if isinstance(error, (ConnectionError, OperationalError, ProtocolError)):
        raise ProtocolError(f"a signal handler failed in mid-request: {error}") from error
    raise error


def is_interrupt(error: BaseException) -> bool:
    """Whether a signal handler raised an exception that was caught."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        if _is_handler(trace.tb_next.tb_frame, trace.tb_frame):
            return True
        trace = trace.tb_next
    return False


def _is_handler(called: FrameType, interrupted: FrameType) -> bool:
    # Nothing else is given the very frame that it was called from.
    for given in called.f_locals.values():
        if given is interrupted:
            return True
        if type(given) is tuple and any(each is interrupted for each in given):
            return True
    return False
