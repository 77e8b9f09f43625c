"""How a demo ends, whatever comes of it."""

import signal
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor

import pymysql

from hskv import HandlerSocketError

from .workers import DemoError


def ended(run: Callable[[], None]) -> int:
    """Run a demo; its exit status. Whatever goes wrong ends it with a message."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run()
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    except (HandlerSocketError, OSError, pymysql.MySQLError, BrokenExecutor, DemoError) as failed:
        print(f"demo: {failed}", file=sys.stderr)
        return 1
    return 0
