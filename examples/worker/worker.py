"""One worker: it takes jobs until it is told to stop, and leads where nobody else does.

    HSKV_URL=... python -m examples.worker.worker

Start as many as there is work for, on as many machines.
"""

import hashlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from hskv import HandlerSocketError, KeyValueStore

from .jobs import Claim, Jobs
from .leader import Leader

PREFIX: Final = "examples.worker:"
POLL_SECONDS: Final = 0.1
PAUSE_SECONDS: Final = 1.0

_log = logging.getLogger("worker")


def open_jobs(store: KeyValueStore[str, Any]) -> Jobs:
    """The queue, by the same rules in all processes."""
    return Jobs(store, visible_after=2.0, attempts=3, pause=0.2)


def work(task: dict[str, Any]) -> str:
    """What a job asks for: a chain of hashes, and to take so many seconds."""
    if task["number"] < 0:
        raise ValueError("a number below zero")
    time.sleep(task["seconds"])
    digest = str(task["number"]).encode()
    for _ in range(1000):
        digest = hashlib.sha256(digest).digest()
    return digest.hex()


class Worker:
    """Takes jobs from the queue, one after another; their results are in the store."""

    def __init__(self, store: KeyValueStore[str, Any], jobs: Jobs) -> None:
        self._jobs = jobs
        self._results = store.namespace("result:")

    def run(self, stop: threading.Event) -> None:
        """Work until stopped. While the server is away it is asked again after a pause."""
        while not stop.is_set():
            try:
                if not self.work_on_one():
                    stop.wait(POLL_SECONDS)
            except HandlerSocketError as error:
                # Whatever the server did of it: a claim ends by itself, and its job comes back.
                _log.warning("%s", error)
                stop.wait(PAUSE_SECONDS)

    def work_on_one(self) -> bool:
        """Do the next job; False where there is none."""
        claim = self._jobs.claim()
        if claim is None:
            return False
        try:
            with kept(self._jobs, claim):
                answer = work(claim.task)
        except Exception as error:  # noqa: BLE001 whatever a job may raise
            _log.info("job %s failed: %s", claim.id, error)
            self._jobs.fail(claim, f"{type(error).__name__}: {error}")
            return True
        # Under the job's name: done twice comes to the same as done once.
        self._results[claim.id] = {"worker": os.getpid(), "answer": answer}
        self._jobs.finish(claim)
        return True


@contextmanager
def kept(jobs: Jobs, claim: Claim) -> Iterator[None]:
    """Extend a claim in the background, for as long as its job takes."""
    done = threading.Event()

    def extend() -> None:
        while not done.wait(jobs.visible_after / 3):
            try:
                if jobs.extend(claim) is None:
                    _log.warning("job %s was taken over by another worker", claim.id)
                    return
            except HandlerSocketError as error:
                _log.warning("a claim could not be extended, it is tried again: %s", error)

    thread = threading.Thread(target=extend, name="claim-extension", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def main() -> None:
    """Work on the table of `HSKV_URL` until SIGTERM or Ctrl-C; the job at hand is done first."""
    logging.basicConfig(level=logging.INFO, format="worker %(process)d: %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with KeyValueStore(prefix=PREFIX) as store:
        jobs = open_jobs(store)
        leader = threading.Thread(target=Leader(store, jobs).run, args=(stop,), name="leader")
        leader.start()
        Worker(store, jobs).run(stop)
        leader.join()


if __name__ == "__main__":
    main()
