"""Processes that end with the demo, however that ends."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

CONTEXT: Final = multiprocessing.get_context("spawn")


class DemoError(Exception):
    """What the demo promises did not come true."""


@contextmanager
def worker_pool(
    processes: int, begin: Callable[P, None], *arguments: P.args, **named: P.kwargs
) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes, each of which begins so; what is not begun when it ends is dropped."""
    initial = (begin, arguments, named)
    pool = ProcessPoolExecutor(processes, CONTEXT, start, initargs=initial)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def start(
    begin: Callable[..., None], arguments: tuple[object, ...], named: dict[str, object]
) -> None:
    """The first thing that a worker does."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    begin(*arguments, **named)


def end_with_parent() -> None:
    """End the worker when the demo was killed: nobody else would."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os._exit(1)


def submit(
    pool: ProcessPoolExecutor, work: Callable[..., T], tasks: Iterable[tuple[object, ...]]
) -> list[Future[T]]:
    """Hand out the work, once for each tuple of arguments."""
    # The processes start here.
    with interrupts_later():
        return [pool.submit(work, *task) for task in tasks]


@contextmanager
def interrupts_later() -> Iterator[None]:
    """Keep a Ctrl-C for the end: one amid the start of a process would leave half of one.

    Processes inherit the mask: this one alone answers. Of this process it holds back only what
    comes to the main thread; another thread has Python call the handler all the same.
    """
    kept: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: kept.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, handler)
    if kept:
        raise KeyboardInterrupt
