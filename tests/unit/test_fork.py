"""What a forked child lets go of and renews."""

import contextlib
import os
import socket
import weakref
from typing import Any

import pytest

from hskv.transport import fork
from hskv.transport.fork import close_after_fork, renew_after_fork


class Renewed:
    def __init__(self) -> None:
        self.forks = 0

    def after_fork(self) -> None:
        self.forks += 1


def test_a_child_renews_and_closes_its_copies_and_the_parent_keeps_its_own() -> None:
    one = Renewed()
    renew_after_fork(one)
    ours, theirs = socket.socketpair()
    close_after_fork(ours)
    child = os.fork()
    if child == 0:
        result = 1
        with contextlib.suppress(BaseException):
            assert one.forks == 1
            assert ours.fileno() == -1
            assert theirs.fileno() != -1
            result = 0
        os._exit(result)
    assert os.waitpid(child, 0)[1] == 0
    assert one.forks == 0
    with ours, theirs:
        ours.sendall(b"x")
        assert theirs.recv(1) == b"x"


def test_a_socket_that_cannot_be_closed_keeps_nothing_else_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fork, "_objects", weakref.WeakSet())
    monkeypatch.setattr(fork, "_sockets", weakref.WeakSet())

    class Broken:
        def close(self) -> None:
            raise OSError("bad file descriptor")

    broken: Any = Broken()
    one = Renewed()
    close_after_fork(broken)
    renew_after_fork(one)
    fork._after_fork_in_child()
    assert one.forks == 1
