"""What a forked child lets go of and renews."""

import contextlib
import os
import socket

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
