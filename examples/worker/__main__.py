"""Workers on a private MariaDB, two of which are killed while they work.

    python -m examples.worker          # on a private MariaDB
    HSKV_URL=... python -m examples.worker

It puts jobs into a queue, starts workers as processes of their own, kills one in the middle of a
job and then the leader, both with SIGKILL, and starts others in their place. At the end every job
has its result, and those that cannot be done are dead letters.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import hskv
from hskv.mariadb import PrivateServer

from .jobs import Jobs
from .worker import PREFIX, open_jobs

ROOT: Final = Path(__file__).parents[2]
WORKER_MODULE: Final = "examples.worker.worker"
WORKERS: Final = 4
JOBS: Final = 100
JOB_SECONDS: Final = 0.05
# So long that it is still at work when its worker is killed, and longer than a claim lasts.
LONG_JOB_SECONDS: Final = 3.0
PATIENCE_SECONDS: Final = 60.0

Store = hskv.KeyValueStore[str, Any]


class ExampleError(Exception):
    """What the example promises did not come true."""


class Workers:
    """Processes, so many at any time."""

    def __init__(self, url: str) -> None:
        self._environment = {**os.environ, "HSKV_URL": url}
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, count: int) -> None:
        """Start so many more."""
        for _ in range(count):
            # None is to stay behind when this process is killed.
            command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", WORKER_MODULE]
            process = subprocess.Popen(command, cwd=ROOT, env=self._environment)
            self.processes[process.pid] = process

    def replace(self, pid: int) -> None:
        """Kill a worker on the spot, and start another."""
        process = self.processes.pop(pid)
        process.kill()
        process.wait()
        self.start(1)

    def stop(self) -> None:
        """Have all of them do the job at hand, and end."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(PATIENCE_SECONDS)


@contextmanager
def workers_on(url: str) -> Iterator[Workers]:
    """Workers that are gone afterwards."""
    workers = Workers(url)
    try:
        workers.start(WORKERS)
        yield workers
    finally:
        workers.stop()


def until(what: str, found: Callable[[], Any]) -> Any:
    """What comes true in the end."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (result := found()):
        if time.monotonic() > deadline:
            raise ExampleError(f"{what}: not within {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.05)
    return result


def fill(jobs: Jobs) -> tuple[str, set[str], str]:
    """Put jobs into the queue: a long one, many short ones, and one that cannot be done."""
    long = jobs.put({"number": 0, "seconds": LONG_JOB_SECONDS})
    many = {jobs.put({"number": n, "seconds": JOB_SECONDS}) for n in range(1, JOBS)}
    return long, many | {long}, jobs.put({"number": -1, "seconds": 0})


def show(store: Store, workers: Workers, jobs: Jobs) -> None:
    """Kill workers, wait for all jobs, and look at what came of them."""
    long, possible, impossible = fill(jobs)
    print(f"{len(jobs.waiting)} jobs wait for {WORKERS} workers.", flush=True)
    pid = until("the long job begins", lambda: jobs.waiting[long].get("worker"))
    workers.replace(pid)
    print(f"Killed worker {pid}, which was in the middle of a job; started another.", flush=True)
    leader = until("a leader", lambda: living(store.get("status"), workers))
    workers.replace(leader["leader"])
    print(f"Killed the leader, worker {leader['leader']}; started another.", flush=True)
    until("another leader", lambda: store["status"]["fence"] > leader["fence"])
    until("all jobs are done", lambda: not jobs.waiting)
    status = until("the leader counts", lambda: counted(store["status"]))
    check(store, possible, impossible, jobs)
    print(f"Now worker {status['leader']} leads, by fence {status['fence']}.")
    done_by = {row["worker"] for row in store.namespace("result:").values()}
    print(f"{len(possible)} jobs have their result, by {len(done_by)} workers; none was lost.")
    print(f"The dead letter: {jobs.dead[impossible]['why']!r}, after 3 attempts.")


def living(status: dict[str, Any] | None, workers: Workers) -> dict[str, Any] | None:
    """A leader's status, unless its process is gone."""
    return status if status and status["leader"] in workers.processes else None


def counted(status: dict[str, Any]) -> dict[str, Any] | None:
    """A leader's status, once it has seen the queue empty."""
    return None if status["waiting"] else status


def check(store: Store, possible: set[str], impossible: str, jobs: Jobs) -> None:
    """Every job has its result, and the one that has none is dead."""
    if (lost := possible - set(store.namespace("result:"))) or set(jobs.dead) != {impossible}:
        raise ExampleError(f"without a result: {lost}; dead letters: {list(jobs.dead)}")


def main() -> None:
    """Show it, on an empty queue."""
    with ExitStack() as stack:
        url = os.environ.get("HSKV_URL") or stack.enter_context(PrivateServer()).url
        store = stack.enter_context(hskv.connect(url, prefix=PREFIX))
        store.clear()
        show(store, stack.enter_context(workers_on(url)), open_jobs(store))


if __name__ == "__main__":
    try:
        main()
    except ExampleError as error:
        sys.exit(f"worker: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
