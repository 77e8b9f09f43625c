"""A periodic task of which one worker of all takes care: the leader, by a lease."""

import logging
import os
import threading
from typing import Any, Final

from hskv import HandlerSocketError, KeyValueStore

from .jobs import Jobs

LEASE_SECONDS: Final = 2.0
EVERY_SECONDS: Final = 0.25
# Workers of one machine have one clock; on several, leave it at the 1 s that is the default.
SKEW_SECONDS: Final = 0.1

_log = logging.getLogger("worker")


class Leader:
    """A candidate: it leads where nobody else does, and then counts the queue at each turn."""

    def __init__(self, store: KeyValueStore[str, Any], jobs: Jobs) -> None:
        self._store = store
        self._jobs = jobs
        self._lease = store.lease(
            "leader", LEASE_SECONDS, max_skew=SKEW_SECONDS, renew=True, fence=True
        )

    def run(self, stop: threading.Event) -> None:
        """Take turns until stopped, then let another lead at once."""
        while not stop.wait(EVERY_SECONDS):
            try:
                self.turn()
            except HandlerSocketError as error:
                _log.warning("%s", error)
        if self._lease.held:
            self._lease.release()

    def turn(self) -> bool:
        """Lead, where nobody else does; True where the status was written."""
        if not (self._lease.held or self._lease.acquire(wait=False)):
            return False
        counts = {"waiting": len(self._jobs.waiting), "dead": len(self._jobs.dead)}
        return write_status(
            self._store, {"leader": os.getpid(), "fence": self._lease.fence, **counts}
        )


def write_status(store: KeyValueStore[str, Any], status: dict[str, Any]) -> bool:
    """Store a status, unless a later leader has stored one; True where it was stored.

    A leader that is stalled between its look at the lease and its write is late: the fence, which
    grows with each leader, has that write refused.
    """
    if store.add("status", status):
        return True
    present, version = store.get_versioned("status")
    if present["fence"] > status["fence"]:
        return False
    return store.compare_and_set("status", status, version)
