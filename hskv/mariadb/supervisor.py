"""Runs a kept server: in this process, or in one of its own that outlives the caller.

`python -m hskv.mariadb.supervisor DIRECTORY SETTINGS` is that process; it is the parent of
mariadbd, which ends with it. Locks: two bytes of the file `lock` in the directory, which a
supervisor holds while it lives (`_ALIVE`) and once the server answers (`_READY`). The kernel
knows who holds them: nothing that was written down can be stale, and no other process is ended.
"""

import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from .kept import LOCK, KeptServer, prepare
from .programs import ServerStartError

_ALIVE: Final = 0
_READY: Final = 1
_POLL_SECONDS: Final = 0.1
# The interpreter of the supervisor starts too.
_SPARE_SECONDS: Final = 5.0
# struct flock of Linux: type, whence, start, length, pid.
_FLOCK: Final = struct.Struct("@hhqqi4x")

Options = Mapping[str, str]


class AlreadyRunningError(ServerStartError):
    """A supervisor has this directory already."""


def supervisor_pid(directory: Path, byte: int = _ALIVE) -> int | None:
    """The process that runs the server of a directory, None where none does.

    Raises ServerStartError where it is in another container.
    """
    try:
        file = (directory / LOCK).open("rb")
    except FileNotFoundError:
        return None
    with file:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        answer = fcntl.fcntl(file, fcntl.F_GETLK, asked)
    kind, _, _, _, pid = _FLOCK.unpack(answer)
    if kind == fcntl.F_UNLCK:
        return None
    if pid <= 0:
        raise ServerStartError(f"a process of another container runs the server of {directory}")
    return int(pid)


def is_ready(directory: Path) -> bool:
    """Whether the server of a directory answers, as its supervisor knows."""
    return supervisor_pid(directory, _READY) is not None


def run(
    directory: Path, options: Options, timeout: float, ready: Callable[[], object]
) -> str | None:
    """Run the server until SIGINT, SIGTERM or SIGHUP; `ready` is called once it answers.

    What is wrong, where it ended by itself. Raises ServerStartError, AlreadyRunningError; only
    for the main thread.
    """
    ended = threading.Event()
    with (
        _signals(lambda *_: ended.set()),
        _held(prepare(directory)) as hold,
        KeptServer(directory, options=options, start_timeout=timeout) as server,
    ):
        hold(_READY)
        ready()
        while not ended.wait(_POLL_SECONDS):
            if server.pid is None:
                return f"mariadbd ended by itself; see {server.directory / 'log'}"
    return None


def start(directory: Path, options: Options, timeout: float) -> bool:
    """Start the server in a process of its own; False where it ran already.

    Returns when it answers. Raises ServerStartError.
    """
    directory = prepare(directory)
    deadline = time.monotonic() + timeout + _SPARE_SECONDS
    while not is_ready(directory):
        if supervisor_pid(directory) is None and _spawn(directory, options, timeout):
            return True
        if time.monotonic() > deadline:
            raise ServerStartError(f"the server of {directory} does not answer in time")
        time.sleep(_POLL_SECONDS)
    return False


def stop(directory: Path, timeout: float) -> bool:
    """Stop the server, and wait until it is gone; False where none ran.

    Raises ServerStartError where it does not end in time, or belongs to another user.
    """
    pid = supervisor_pid(directory)
    if pid is None:
        return False
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        # The number may have gone to another process; the handle then is that one's.
        if supervisor_pid(directory) == pid:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            if not select.select([handle], [], [], timeout)[0]:
                raise ServerStartError(f"process {pid} has not ended within {timeout:g} s")
    except PermissionError:
        message = f"process {pid} belongs to another user: let that one stop it"
        raise ServerStartError(message) from None
    finally:
        os.close(handle)
    return True


def _spawn(directory: Path, options: Options, timeout: float) -> bool:
    """Start a supervisor and wait for what it reports; False where another was quicker."""
    settings = json.dumps({"options": dict(options), "timeout": timeout})
    command = [sys.executable, "-m", "hskv.mariadb.supervisor", str(directory), settings]
    with (directory / "supervisor.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    with process.stdout as reports:  # type: ignore[union-attr]
        line = reports.readline()
    # It lives on: what waits for it is whoever adopts it.
    process.returncode = 0
    report = json.loads(line or b"{}")
    if "error" in report:
        raise ServerStartError(report["error"])
    if not report:
        raise ServerStartError(f"the supervisor ended; see {directory / 'supervisor.log'}")
    return bool(report["started"])


@contextmanager
def _held(directory: Path) -> Iterator[Callable[[int], None]]:
    """Hold the first byte of the lock, and others when asked."""
    # Not to be opened again meanwhile: the kernel drops a process's locks on a file with the
    # first of its descriptors that is closed.
    with (directory / LOCK).open("r+b") as file:

        def hold(byte: int) -> None:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)

        try:
            hold(_ALIVE)
        except BlockingIOError:
            message = f"the server of {directory} runs already; see hskv server status"
            raise AlreadyRunningError(message) from None
        yield hold


@contextmanager
def _signals(handler: Callable[..., object]) -> Iterator[None]:
    """Handle the signals that end a server."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [(number, signal.signal(number, handler)) for number in numbers]
    try:
        yield
    finally:
        for number, old in before:
            signal.signal(number, old)


def _report(**content: Any) -> None:
    """Tell the one that started this process, which then goes its own way."""
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _main(directory: str, settings: str) -> int:
    try:
        trouble = run(Path(directory), **json.loads(settings), ready=lambda: _report(started=True))
    except AlreadyRunningError:
        _report(started=False)
        return 0
    except Exception as error:  # noqa: BLE001 whatever it is, the starter is told
        _report(error=str(error))
        return 1
    if trouble:
        sys.stderr.write(trouble + "\n")
    return int(trouble is not None)


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
