"""Puts client and servers on one core.

Unpinned, the scheduler decides whether client and server share a core, and figures jump by a
factor of four.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def on_cores(cores: int, *servers: int | None) -> Iterator[None]:
    """Put clients and servers on one core, or the clients on a first and the servers on a second.

    Clients are this process and those that it starts meanwhile.
    """
    allowed = os.sched_getaffinity(0)
    first, *others = sorted(allowed)
    place = {others[0]} if cores > 1 and others else {first}
    os.sched_setaffinity(0, {first})
    for process in servers:
        for task in Path(f"/proc/{process}/task").iterdir():
            os.sched_setaffinity(int(task.name), place)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
