"""Private redis and memcached servers, from the system's packages, on loopback or unix sockets."""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

START_SECONDS = 10.0
STOP_SECONDS = 10.0


class Peer(NamedTuple):
    """A server that runs: where it listens, and its process."""

    path: str
    port: int
    pid: int


@contextmanager
def redis_server(*, tcp: bool, always_durable: bool = False) -> Iterator[Peer]:
    """A redis without persistence, or with every write synced to its log."""
    with tempfile.TemporaryDirectory(prefix="hskv-redis-") as directory:
        path, port = listener(directory, tcp=tcp)
        durable = "--appendonly yes --appendfsync always" if always_durable else ""
        command = f"redis-server --dir {directory} --save '' --port {port} {durable}".split()
        command[command.index("''")] = ""
        command += ["--bind", "127.0.0.1"] if tcp else ["--unixsocket", path]
        with running(command, path, port) as pid:
            yield Peer(path, port, pid)


@contextmanager
def memcached_server(*, tcp: bool) -> Iterator[Peer]:
    """A memcached of 64 MiB."""
    with tempfile.TemporaryDirectory(prefix="hskv-memcached-") as directory:
        path, port = listener(directory, tcp=tcp)
        command = ["memcached", "-u", "root", "-m", "64"]
        command += ["-l", "127.0.0.1", "-p", str(port)] if tcp else ["-s", path]
        with running(command, path, port) as pid:
            yield Peer(path, port, pid)


def listener(directory: str, *, tcp: bool) -> tuple[str, int]:
    """A path for a unix socket, or a free port of loopback."""
    if not tcp:
        return str(Path(directory, "socket")), 0
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return "", port


@contextmanager
def running(command: Sequence[str], path: str, port: int) -> Iterator[int]:
    """A process, from when it accepts until the block ends."""
    program = shutil.which(command[0])
    if program is None:
        sys.exit(f"{command[0]} is missing: run `make bench-setup`")
    process = subprocess.Popen([program, *command[1:]], stdout=subprocess.DEVNULL)
    try:
        wait_until_it_accepts(process, path, port)
        yield process.pid
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def wait_until_it_accepts(process: subprocess.Popen[bytes], path: str, port: int) -> None:
    """Try to connect, until it works, the process ended, or too long passed."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.socket(socket.AF_UNIX if path else socket.AF_INET) as probe:
                probe.connect(path or ("127.0.0.1", port))
            return
        except OSError:
            time.sleep(0.02)
    sys.exit(f"{process.args!r} did not start")
