"""hskv beside a raw socket loop that sends the same bytes, in one run on one core.

Every case is measured in turns with its raw loop, on the same server. A ratio is the median over
rounds of (time of the loop / time of hskv): 1.00 is the loop, lower is slower. Bare times say
little and are shown only for orientation.
"""

import argparse
import itertools
import platform
import socket
import statistics
import sys
import time
import timeit
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from rich.console import Console
from rich.progress import track
from rich.table import Table

import hskv
from benchmarks.pinning import on_one_core
from hskv.client import Index
from hskv.mariadb import PrivateServer
from hskv.store.values import Kind
from hskv.transport.address import Address, load_settings
from hskv.transport.channel import Channel
from hskv.transport.pool import ChannelPool
from hskv.wire import requests
from hskv.wire.requests import Filter, In

Action = Callable[[], object]

KEYS = [f"key:{number:05}" for number in range(2_000)]
BATCH = KEYS[:100]
VALUE = "x" * 100
COLUMNS = ("k", "v", "n", "kind", "version", "expires")
FILTERS = ("kind", "expires", "n", "version", "k")
NEVER = 2**63 - 1


@dataclass
class Case:
    """One operation: hskv's call, and the loop that sends the same bytes."""

    name: str
    ours: Action
    raw: Action
    calls: int
    times: dict[str, list[float]] = field(default_factory=lambda: {"ours": [], "raw": []})

    def measure(self) -> None:
        """One round: both, each in microseconds a call."""
        for name, action in (("raw", self.raw), ("ours", self.ours)):
            started = time.perf_counter()
            for _ in range(self.calls):
                action()
            self.times[name].append((time.perf_counter() - started) / self.calls * 1e6)

    @property
    def ratio(self) -> float:
        """Median over the rounds of the loop's time by ours."""
        pairs = zip(self.times["raw"], self.times["ours"], strict=True)
        return statistics.median(raw / ours for raw, ours in pairs)


class RawLoop:
    """A socket and prebuilt bytes: what no client can beat."""

    def __init__(self, address: Address, secret: str, indexes: list[Index]) -> None:
        if address.path:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(address.path)
        else:
            self.sock = socket.create_connection((address.host, address.port))
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines = [requests.auth(secret.encode())]
        lines += [index.open_line(number) for number, index in enumerate(indexes)]
        self.send(b"".join(lines), len(lines))

    def send(self, packet: bytes, replies: int) -> bytes:
        """One exchange, its replies counted by their line ends."""
        self.sock.send(packet)
        data = self.sock.recv(1 << 16)
        while data.count(b"\n") < replies:
            more = self.sock.recv(1 << 16)
            if not more:
                raise SystemExit("the server hung up on the raw loop")
            data += more
        return data

    def action(self, *packets: bytes, replies: int = 1) -> Action:
        """An exchange of the packets in turn, the success of the first checked."""
        reply = self.send(packets[0], replies)
        if not all(line.startswith(b"0\t") for line in reply.splitlines()):
            raise SystemExit(f"the raw loop failed: {reply[:200]!r}")
        following = itertools.cycle(packets).__next__
        if replies > 1:
            return lambda: self.send(following(), replies)
        send, recv = self.sock.send, self.sock.recv

        def exchange() -> None:
            send(following())
            while data := recv(1 << 16):
                if data.endswith(b"\n"):
                    return
            raise SystemExit("the server hung up on the raw loop")

        return exchange


def live(now: int) -> Filter:
    """The filter that every read of a store carries."""
    return Filter(FILTERS.index("expires"), ">", b"%d" % now)


def update(key: str, version: int) -> bytes:
    """What a store sends to set a key; the server writes nothing where the version is the same."""
    row = [VALUE.encode(), b"0", b"1", b"%d" % version, b"%d" % NEVER]
    return b"2" + requests.find_modify("=", [key.encode()], "U", row)


def cases(server: PrivateServer, rounds_calls: int) -> Iterator[Case]:
    """All cases on a server, each checked to work before it is measured."""
    store = hskv.connect(server.url)
    client = store.client
    store.set_many(dict.fromkeys(KEYS, VALUE))
    store["counter"] = 0
    found = client.open("kv", ["v", "n", "kind"], filter_columns=FILTERS)
    items = client.open("kv", ["k", "v", "n", "kind"], filter_columns=FILTERS)
    changes = client.open("kv", COLUMNS[1:], filter_columns=FILTERS)
    counter = client.open("kv", ["n", "version"], filter_columns=FILTERS)
    pairs = client.open("kv", ["k", "v"])
    indexes = [found, items, changes, counter, pairs]
    read = RawLoop(client.settings.readers[0], server.secret, indexes)
    write = RawLoop(client.settings.writers[0], server.write_secret, indexes)
    now, key = int(time.time() * 1000), KEYS[7]
    encoded: list[bytes | None] = [name.encode() for name in BATCH]

    plain = b"0" + requests.find("=", [key.encode()])
    yield Case(
        "Client.find, 100 B",
        lambda: client.find(found, "=", [key.encode()]),
        read.action(plain),
        rounds_calls,
    )
    manager = hskv.Manager.over(client)
    yield Case(
        "Manager.get, 100 B",
        lambda: manager.get("hskv", "kv", ["k", "v"], key),
        read.action(b"4" + requests.find("=", [key.encode()])),
        rounds_calls,
    )
    timed = b"0" + requests.find("=", [key.encode()], filters=[live(now)])
    yield Case("store.get, 100 B", lambda: store.get(key), read.action(timed), rounds_calls)
    many = b"1" + requests.find("=", [b""], 100, 0, In(0, encoded), [live(now)])
    yield Case(
        "store.get_many(100)",
        lambda: store.get_many(BATCH),
        read.action(many),
        max(rounds_calls // 20, 1),
    )
    versions = (2**61, 2**61 + 1)
    yield Case(
        "store.set, existing",
        lambda: store.set(key, VALUE),
        write.action(*(update(key, version) for version in versions)),
        rounds_calls,
    )
    packets = [b"".join(update(name, version) for name in BATCH) for version in versions]
    values = dict.fromkeys(BATCH, VALUE)
    yield Case(
        "store.set_many(100), existing",
        lambda: store.set_many(values),
        write.action(*packets, replies=100),
        max(rounds_calls // 20, 1),
    )
    room = [
        Filter(FILTERS.index("kind"), "=", b"%d" % Kind.INTEGER),
        live(now),
        Filter(FILTERS.index("n"), "<=", b"%d" % (NEVER - 1)),
    ]
    add = b"3" + requests.find_modify("=", [b"counter"], "+?", [b"1", b"1"], filters=room)
    yield Case("store.incr", lambda: store.incr("counter"), write.action(add), rounds_calls)


def run(tcp: bool, rounds: int, calls: int, console: Console) -> list[Case]:
    """Measure all cases over one transport."""
    options = {"innodb_flush_log_at_trx_commit": 2}
    with PrivateServer(tcp=tcp, options=options) as server, on_one_core(server.pid):
        measured = list(cases(server, calls))
        name = "TCP" if tcp else "unix sockets"
        for _ in track(range(rounds), f"{name}, {rounds} rounds", console=console):
            for case in measured:
                case.measure()
    return measured


def pool_microseconds(server: PrivateServer, peek_after: float) -> float:
    """An uncontended acquire and release, the best of several rounds."""
    settings = load_settings(server.url)
    connect = partial(
        Channel, settings.readers[0], settings.secret, {}, connect_timeout=2.0, timeout=5.0
    )
    pool = ChannelPool(connect, size=1, timeout=1.0, peek_after=peek_after)
    acquire, release = pool.acquire, pool.release
    calls = 50_000
    try:
        spent = timeit.repeat(
            lambda: release(acquire()), timer=time.process_time, number=calls, repeat=9
        )
        return min(spent) / calls * 1e6
    finally:
        pool.close()


def show(name: str, measured: list[Case], console: Console) -> None:
    """A table of ratios."""
    table = Table("", "ratio", "hskv us", "raw loop us", title=f"hskv beside a raw loop, {name}")
    for column in table.columns[1:]:
        column.justify = "right"
    for case in measured:
        medians = (statistics.median(case.times[side]) for side in ("ours", "raw"))
        table.add_row(case.name, f"{case.ratio:.2f}", *(f"{median:.1f}" for median in medians))
    console.print(table)


def main() -> None:
    """Run, over unix sockets and TCP."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=2_000, help="of a single request, per round")
    arguments = parser.parse_args()
    console = Console()
    console.print(
        f"hskv {hskv.__version__}, codec {hskv.codec_implementation}, Python "
        f"{platform.python_version()}, pinned to one core, innodb_flush_log_at_trx_commit=2"
    )
    for tcp in (False, True):
        measured = run(tcp, arguments.rounds, arguments.calls, console)
        show("TCP" if tcp else "unix sockets", measured, console)
    with PrivateServer() as server, on_one_core(server.pid):
        reader, writer = (pool_microseconds(server, peek_after) for peek_after in (1.0, 0.0))
    console.print(
        f"acquire and release of a pool: {reader:.2f} us; of writers, which are asked each time "
        f"whether the server is still there: {writer:.2f} us"
    )


if __name__ == "__main__":
    try:
        main()
    except hskv.HandlerSocketError as error:
        sys.exit(str(error))
