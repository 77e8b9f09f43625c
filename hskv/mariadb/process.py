"""The processes of a private server: as which user they run, and that they end.

Locks: none. The keeper is the thread that starts a process and waits for it: the kernel ends a
process whose parent *thread* ended, and the keeper lives as long as the process does.
"""

import contextlib
import fcntl
import getpass
import os
import pwd
import select
import shutil
import signal
import stat
import subprocess
import threading
from pathlib import Path
from typing import Final

from .programs import ServerStartError

_STOP_SECONDS: Final = 20.0


class Keeper:
    """A process that ends when this one does, and the thread that is its parent."""

    def __init__(self, setpriv: str, command: list[str], log: Path) -> None:
        self._command = [*as_server_user(setpriv, "--pdeathsig", "KILL"), *command]
        self._log = log
        self._started = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._keep, name="hskv-keeper", daemon=True)

    @property
    def pid(self) -> int | None:
        """The id of the process, None when it does not run."""
        process = self._process
        return process.pid if process and process.returncode is None else None

    def start(self) -> None:
        """Start the process. Raises ServerStartError where the system refuses."""
        self._thread.start()
        self._started.wait()
        if self._error:
            message = f"{self._command[0]} could not be started: {self._error}"
            raise ServerStartError(message) from self._error

    def end(self, number: signal.Signals) -> None:
        """Send a signal and wait; SIGKILL follows when that does not end it in 20 s."""
        if self._thread.ident is None:
            return
        self._started.wait(_STOP_SECONDS)
        for each in (number, signal.SIGKILL):
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.send_signal(each)
            self._thread.join(_STOP_SECONDS)
            if not self._thread.is_alive():
                return

    def _keep(self) -> None:
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    start_new_session=True,
                )
        except OSError as error:
            self._error = error
            return
        finally:
            self._started.set()
        pid = self._process.pid
        _wait_for_end(pid)
        # What it runs itself, as to copy its data to another, ends with it: they are its group,
        # whose number nobody else gets before it is waited for.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        self._process.wait()


def _wait_for_end(pid: int) -> None:
    """Wait until a process has ended, and leave its number to it.

    By poll where that can be: a program that gevent has patched goes on meanwhile.
    """
    try:
        process = os.pidfd_open(pid)
    except (OSError, AttributeError):  # an old kernel, a container, a Python that is without it
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return
    try:
        ends = select.poll()
        ends.register(process, select.POLLIN)
        ends.poll()
    finally:
        os.close(process)


def run(command: list[str], timeout: float) -> str | None:
    """Run a program and the programs that it runs; what it said when it failed, else None.

    A timeout (seconds) counts as a failure; that and an interrupt end them all.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return f"it did not end within {timeout:.1f} s"
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return output.decode(errors="replace") if process.returncode else None


def as_server_user(setpriv: str, *arguments: str) -> list[str]:
    """The beginning of a command that runs as the server's user."""
    user = _server_user()
    drop = ["--reuid", user, "--regid", user, "--init-groups"] if user else []
    return [setpriv, *drop, *arguments, "--"] if drop or arguments else []


def give_to_server_user(path: Path) -> None:
    """Make the server's user the owner."""
    if (user := _server_user()) is not None:
        shutil.chown(path, user, user)


def closed_to_server_user(path: Path) -> Path | None:
    """The first directory on the way to a path that the server's user may not enter."""
    if (user := _server_user()) is None:
        return None
    entry = pwd.getpwnam(user)
    groups = os.getgrouplist(user, entry.pw_gid)
    for directory in reversed(path.resolve().parents):
        status = directory.stat()
        needed = stat.S_IXOTH
        if status.st_uid == entry.pw_uid:
            needed = stat.S_IXUSR
        elif status.st_gid in groups:
            needed = stat.S_IXGRP
        if not status.st_mode & needed:
            return directory
    return None


def is_in_use(datadir: Path) -> bool:
    """Whether a live server holds the lock of a data directory."""
    try:
        with (datadir / "ibdata1").open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (FileNotFoundError, PermissionError):
        return False
    return False


def _server_user() -> str | None:
    """The user to run as: mariadbd refuses to be root; None for ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("mysql").pw_name
    except KeyError:
        raise ServerStartError(
            "mariadbd cannot run as root, and there is no user mysql: make one, or run as "
            f"another user than {getpass.getuser()}"
        ) from None
