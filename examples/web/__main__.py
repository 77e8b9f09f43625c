"""A page with a cache, sessions, a rate limit and a live counter, from three processes.

    python -m examples.web          # on a private MariaDB
    HSKV_URL=... python -m examples.web

then open http://127.0.0.1:8000/ in two windows. PORT=0 takes a port that is free. The processes are
gunicorn's; what they share is in the table alone.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Never

from hskv.mariadb import PrivateServer

ROOT: Final = Path(__file__).parents[2]
WORKERS: Final = 3
# Each open page has one of them for its live counter.
THREADS: Final = 32
STOP_SECONDS: Final = 2


def command(listener: int) -> list[str]:
    """Gunicorn on a socket that listens already."""
    settings = {
        "bind": f"fd://{listener}",
        "workers": WORKERS,
        "worker-class": "gthread",
        "threads": THREADS,
        "graceful-timeout": STOP_SECONDS,
        "log-level": "warning",
        "chdir": ROOT,
    }
    options = [f"--{name}={value}" for name, value in settings.items()]
    gunicorn = [sys.executable, "-m", "gunicorn", *options, "examples.web.app:make_application()"]
    # It is not to stay behind when this process is killed.
    return ["setpriv", "--pdeathsig", "TERM", *gunicorn]


@contextmanager
def serving(listener: socket.socket, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """The processes of the application, which end with the block."""
    environment = {**os.environ, "HSKV_URL": url}
    handed = [listener.fileno()]
    process = subprocess.Popen(command(*handed), env=environment, pass_fds=handed)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def stop(*_: object) -> Never:
    """End as by Ctrl-C, so that what was started is stopped."""
    raise KeyboardInterrupt


def listening(port: int) -> socket.socket:
    """A socket of loopback that listens. Ends the program where another does."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        sys.exit(f"port {port}: {os.strerror(error.errno or 0)}; with PORT=0 it takes a free one")


def main() -> None:
    """Serve on loopback until interrupted."""
    signal.signal(signal.SIGTERM, stop)
    with ExitStack() as stack:
        url = os.environ.get("HSKV_URL") or stack.enter_context(PrivateServer()).url
        listener = stack.enter_context(listening(int(os.environ.get("PORT", "8000"))))
        process = stack.enter_context(serving(listener, url))
        print(f"http://127.0.0.1:{listener.getsockname()[1]}/ (Ctrl-C ends it)", flush=True)
        sys.exit(process.wait())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped")
