"""The files and ports of a private server: its directory, its data, its settings. Locks: none."""

import os
import random
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from .process import (
    as_server_user,
    closed_to_server_user,
    give_to_server_user,
    is_in_use,
    run,
)
from .programs import Programs, ServerStartError

_POLL_SECONDS: Final = 0.02
# A server whose owner was just killed needs a moment to be gone.
_LOCK_SECONDS: Final = 1.0
# What the kernel takes for the path of a unix socket, less the longest name in our directory.
LONGEST_DIRECTORY: Final = 107 - len("/write.sock")
_PORTS: Final = range(15000, 32000)
# Where SQL listens on TCP nobody is to be root without a password.
_LOCAL_ROOT: Final = "DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> 'localhost';\n"


def short_directory() -> Path:
    """A directory whose path leaves room for the name of a socket."""
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 mkdtemp makes a private one in it
        path = Path(parent, "hskv-12345678")
        if len(os.fsencode(path)) <= LONGEST_DIRECTORY and not closed_to_server_user(path):
            made = Path(tempfile.mkdtemp(prefix="hskv-", dir=parent))
            give_to_server_user(made)
            return made
    raise ServerStartError("set TMPDIR to a short path that the server's user may enter")


def own_directory(path: Path) -> Path:
    """A directory that the server's user may write to, made where it is missing."""
    if not path.exists():
        path.mkdir(mode=0o700, parents=True)
        give_to_server_user(path)
    return path


def write_settings(path: Path, settings: Mapping[str, str | int | None]) -> None:
    """Write an option file for mariadbd; a setting that is None is left out."""
    lines = [f"{name} = {value}" for name, value in settings.items() if value is not None]
    write_private(path, "\n".join(["[mariadbd]", *lines, ""]))


def write_private(path: Path, text: str) -> None:
    """Write a file that only the server's user (and root) can read."""
    path.touch(mode=0o600)
    path.write_text(text)
    give_to_server_user(path)


def quoted(value: str) -> str:
    """A text as an option file has it."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def prepare_datadir(datadir: Path) -> None:
    """Make a data directory, or wait until no server has it any more."""
    datadir.mkdir(parents=True, exist_ok=True)
    if (closed := closed_to_server_user(datadir)) is not None:
        raise ServerStartError(
            f"the user mysql cannot enter {closed}, so it cannot use {datadir}: "
            f"chmod o+x {closed}, or give another directory"
        )
    _wait_for_the_lock(datadir)


def install_datadir(programs: Programs, datadir: Path, tmpdir: Path, deadline: float) -> None:
    """Make the system tables in a data directory, unless they are there."""
    if (datadir / "mysql").is_dir():
        return
    give_to_server_user(datadir)
    accounts = tmpdir / "accounts.sql"
    write_private(accounts, _LOCAL_ROOT)
    there = set(datadir.iterdir())
    command = _install_command(programs, datadir, tmpdir, accounts)
    try:
        trouble = run(command, max(0.0, deadline - time.monotonic()))
        if trouble is not None:
            raise ServerStartError(f"mariadb-install-db failed in {datadir}: {trouble}")
    except BaseException:
        # A half of the system tables would pass for all of them at the next start.
        remove(set(datadir.iterdir()) - there)
        raise


def remove(paths: Iterable[Path]) -> None:
    """Remove files, and directories with all that is in them."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def free_ports(count: int, among: range = _PORTS) -> list[str]:
    """Free ports of loopback, below those that the kernel gives out to clients."""
    ports: list[str] = []
    for port in random.sample(among, 100 + count):
        if len(ports) == count:
            return ports
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(str(port))
    raise ServerStartError(f"no {count} free ports were found in {among}")


def _wait_for_the_lock(datadir: Path) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while is_in_use(datadir):
        if time.monotonic() > deadline:
            raise ServerStartError(
                f"{datadir} is in use by another server: stop that one, or give another directory"
            )
        time.sleep(_POLL_SECONDS)


def _install_command(programs: Programs, datadir: Path, tmpdir: Path, accounts: Path) -> list[str]:
    return [
        *as_server_user(programs.setpriv),
        programs.install_db,
        "--no-defaults",
        "--auth-root-authentication-method=normal",
        "--skip-name-resolve",
        "--skip-test-db",
        f"--datadir={datadir}",
        # Two servers that are made at once must not meet in the machine's own.
        f"--tmpdir={tmpdir}",
        f"--extra-file={accounts}",
        "--innodb-log-file-size=8M",
        "--innodb-flush-log-at-trx-commit=0",
    ]
