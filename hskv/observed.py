"""What `on_request` is told of each exchange with a server."""

import logging
from collections.abc import Callable
from typing import NamedTuple

_log = logging.getLogger("hskv")


class RequestInfo(NamedTuple):
    """What `on_request` is told of each exchange with a server, the repeated attempts included.

    `operation` is find, insert, modify or pipeline (of several `requests`), `table` that of the
    first. `seconds` passed, waiting for a channel included. `bytes_sent` are those of the
    requests, `bytes_received` those of the values. `error` is the exception that was raised, or
    the first one in a pipeline; None where all went well. By SQL a statement is a request, and
    what goes in one packet is an exchange. What is refused before it is sent is not told.

    >>> seen = []
    >>> with hskv.connect(url, on_request=seen.append) as watched:
    ...     watched.get("a")
    >>> seen[0].operation, seen[0].table, seen[0].error
    ('find', 'kv', None)
    """

    operation: str
    table: str
    seconds: float
    bytes_sent: int
    bytes_received: int
    requests: int
    error: BaseException | None


OnRequest = Callable[[RequestInfo], object]


def tell(on_request: OnRequest, info: RequestInfo) -> None:
    """Tell it; what it raises is logged, since it must not undo the request."""
    try:
        on_request(info)
    except Exception:  # noqa: BLE001 as above
        _log.exception("on_request raised an exception")
