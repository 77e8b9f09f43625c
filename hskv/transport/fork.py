"""What a forked child must do before it uses what its parent had.

A child has the parent's sockets, whose bytes are not its own, and locks that threads may have held
which it does not have. Objects that hold either are kept here, weakly, and are told.
"""

import os
import weakref
from contextlib import suppress
from socket import socket
from typing import Protocol


class SurvivesFork(Protocol):
    """An object with locks, or with a state that is the parent's."""

    def after_fork(self) -> None: ...  # noqa: D102 called in the child


_objects: "weakref.WeakSet[SurvivesFork]" = weakref.WeakSet()
_sockets: "weakref.WeakSet[socket]" = weakref.WeakSet()


def renew_after_fork(one: SurvivesFork) -> None:
    """Have `after_fork` called in each child."""
    _objects.add(one)


def close_after_fork(sock: socket) -> None:
    """Have a child close its copy of a socket, without a word to the server."""
    _sockets.add(sock)


def _after_fork_in_child() -> None:
    for sock in list(_sockets):
        with suppress(OSError):
            sock.close()
    for one in list(_objects):
        one.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
