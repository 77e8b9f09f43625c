"""What is under test: a store behind two proxies, on a table of its own that a test can look at."""

import socket
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import hskv
from hskv import Client, KeyValueStore
from hskv.mariadb import PrivateServer

from .proxy import Direction, Proxy

NOW: Final = 1_700_000_000.0
NOW_MS: Final = 1_700_000_000_000
NEVER: Final = 2**63 - 1
CONNECT_SECONDS: Final = 0.5
QUICK_SECONDS: Final = 0.3
PATIENT_SECONDS: Final = 5.0
PORTS: Final = ("read", "write")

# What the escapes of the protocol are for, and what the server takes for commands of its own at
# the beginning of a line.
ALPHA: Final = "one\t\0\x01\n/Quit"
LISTED: Final = {"x": [1, None]}

_COLUMNS: Final = ("k", "v", "n", "kind", "version", "expires")
BASE: Final[tuple[tuple[bytes | int, ...], ...]] = (
    (b"alpha", ALPHA.encode(), 0, 1, 7, NEVER),
    (b"beta", b"", 41, 2, 7, NEVER),
    (b"dead", b"gone", 0, 1, 7, NOW_MS - 3_600_000),
    (b"gamma", b'{"x":[1,null]}', 0, 3, 7, NEVER),
    (b"pre:x", b"ex", 0, 1, 7, NEVER),
    (b"pre:y", b"why", 0, 1, 7, NEVER),
    (b"session", b"mine", 0, 1, 7, NOW_MS + 60_000),
)

Rows = dict[bytes, tuple[bytes | None, ...]]
"""Rows by key, without what is random in them."""


class Bench:
    """A store, its client and manager behind a proxy for each port; and a way around them.

    `transport` is "tcp" or "unix". The clock of the stores stands still.
    """

    def __init__(self, server: PrivateServer, table: str, transport: str) -> None:
        self.table = table
        self.transport = transport
        self._server = server
        self._exits = ExitStack()
        try:
            self._open()
        except BaseException:
            self._exits.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exits.close()

    def _open(self) -> None:
        directory = Path(self._exits.enter_context(tempfile.TemporaryDirectory(prefix="flt-")))
        self.proxies = {
            port: self._exits.enter_context(
                Proxy(
                    str(self._server.directory / f"{port}.sock"),
                    str(directory / port) if self.transport == "unix" else None,
                )
            )
            for port in PORTS
        }
        self._direct = self._exits.enter_context(Client(self._server.url))
        self._index = self._direct.open(self.table, _COLUMNS)
        self.lease: Any = None
        self.limiter: Any = None
        self._stores: dict[float, KeyValueStore[str, Any]] = {}
        self._exits.callback(self._forget_stores)
        self.renew()

    def renew(self) -> None:
        """Open new stores, which have no connections yet."""
        self._forget_stores()
        for timeout in (PATIENT_SECONDS, QUICK_SECONDS):
            self._stores[timeout] = hskv.connect(
                self.url,
                timeout=timeout,
                connect_timeout=CONNECT_SECONDS,
                pool_timeout=1.0,
                cull=False,
                clock=lambda: NOW,
            )
        self.use(PATIENT_SECONDS)

    def _forget_stores(self) -> None:
        while self._stores:
            self._stores.popitem()[1].close()

    def use(self, timeout: float) -> None:
        """Choose the store that waits so many seconds for a reply."""
        self.timeout = timeout
        self.store = self._stores[timeout]
        self.client = self.store.client
        self.manager = self.store.manager

    @property
    def url(self) -> str:
        """The URL of the proxies."""
        secret = f":{self._server.secret}@"
        write_secret = f"write_secret={self._server.write_secret}"
        read, write = (self.proxies[port].place for port in PORTS)
        if self.transport == "tcp":
            return f"hskv://{secret}127.0.0.1:{read},{write}/hskv/{self.table}?{write_secret}"
        places = f"read={read}&write={write}"
        return f"hskv+unix://{secret}/hskv/{self.table}?{places}&{write_secret}"

    def reset(self) -> None:
        """Put the table back as it was."""
        pipeline = self._direct.pipeline().modify(self._index, ">=", [b""], "D", limit=2**32 - 1)
        for row in BASE:
            pipeline.insert(self._index, row)
        pipeline.execute()

    def rows(self) -> Rows:
        """What is in the table, when all that was sent to the server before has been done."""
        nowhere = (self._index, "=", [b"\x00nowhere"], "D")
        # The one writer takes what lies ready on all connections in any order, in one turn.
        self._direct.modify(*nowhere)
        found = self._direct.pipeline().modify(*nowhere)
        found.find(self._index, ">=", [b""], limit=10_000)
        return _without_chance(found.execute()[1])

    def states(self, prepare: Callable[[Self], object], call: Callable[[Self], Any]) -> list[Rows]:
        """The table before a call, and after each line that the call sends to the write port."""
        proxy = self.proxies["write"]
        self.renew()
        self.reset()
        proxy.arm(None)
        prepare(self)
        before = proxy.seen(Direction.REQUEST)
        call(self)
        after = proxy.seen(Direction.REQUEST)
        self.reset()
        wire = _Wire(str(self._server.directory / "write.sock"))
        with wire:
            wire.say(before)
            states = [self.rows()]
            for line in after[len(before) :].split(b"\n")[:-1]:
                wire.say(line + b"\n")
                states.append(self.rows())
        return states


class _Wire:
    """A bare connection."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10.0)
        self._socket.connect(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def say(self, lines: bytes) -> None:
        """Send lines and wait for as many."""
        left = lines.count(b"\n")
        self._socket.sendall(lines)
        while left:
            data = self._socket.recv(1 << 16)
            assert data
            left -= data.count(b"\n")


def _without_chance(rows: Iterable[Any]) -> Rows:
    """Rows without random versions, tokens and names; a lease that is free is as good as none."""
    kept: Rows = {}
    for key, value, number, kind, version, expires in rows:
        is_lease = kind == b"32"
        if is_lease and version == b"0":
            continue
        shown = b"held" if is_lease else version if kind == b"33" else None
        name = key[:2] if key.startswith(b"\x00T") else key
        kept[name] = (value, number, kind, shown, expires)
    return kept
