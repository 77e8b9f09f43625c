"""How much Python the most frequent operations run through: counted, since times differ.

A bytecode takes some tens of nanoseconds. The bounds are a little above what was counted with
Python 3.11 to 3.13; who passes one has made the operation slower, and either finds the reason or
says in the commit why it is worth it.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest

import hskv
from hskv import KeyValueStore
from hskv.transport import channel as channel_module

from .scripted import ScriptedSocket

PACKAGE = str(Path(hskv.__file__).parent)
URL = "hskv+unix:///db?read=/run/read&write=/run/write"
MANY = [f"key:{number}" for number in range(100)]
ITEMS = b"0\t4" + b"".join(b"\tkey:%d\tvalue\t0\t1" % number for number in range(100)) + b"\n"

Store = KeyValueStore[str, Any]


class Endless(ScriptedSocket):
    """Answers everything with the same reply."""

    reply = b""

    def recv(self, size: int, flags: int = 0) -> bytes:
        return self.reply


@pytest.fixture
def sock(monkeypatch: pytest.MonkeyPatch) -> Endless:
    made = Endless()
    monkeypatch.setattr(channel_module, "open_socket", lambda address, timeout: made)
    # There is nothing for the kernel to look at.
    monkeypatch.setattr(channel_module.Channel, "gone", lambda channel: False)
    return made


@pytest.fixture
def store(sock: Endless) -> Iterator[Store]:
    with hskv.connect(URL, cull=False) as store:
        yield store


class Counter:
    """Counts bytecodes of hskv, and how deep its calls go."""

    def __init__(self) -> None:
        self.opcodes = 0
        self.deepest = 0
        self._depth = 0

    def run(self, call: Callable[[], object]) -> None:
        before = sys.gettrace()
        # Python 3.12 and later prepare code to be traced when they first meet it.
        for _ in range(2):
            self.opcodes = 0
            sys.settrace(self._trace)
            try:
                call()
            finally:
                sys.settrace(before)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "call":
            frame.f_trace_opcodes = True
            self._depth += 1
            self.deepest = max(self.deepest, self._depth)
        elif event == "return":
            self._depth -= 1
        elif event == "opcode":
            self.opcodes += 1
        return self._trace


class Operation(NamedTuple):
    """What is counted, the reply to it, and the most bytecodes with hskv_fast and without."""

    call: Callable[[Store], object]
    reply: bytes
    compiled: int
    pure: int


OPERATIONS = {
    "get": Operation(lambda store: store.get("key"), b"0\t3\tvalue\t0\t1\n", 350, 490),
    "set": Operation(lambda store: store.set("key", "value"), b"0\t1\t1\n", 440, 600),
    "incr": Operation(lambda store: store.incr("n"), b"0\t2\t5\t7\n", 550, 700),
    "get_many(100)": Operation(lambda store: store.get_many(MANY), ITEMS, 2_700, 4_400),
    "set_many(100)": Operation(
        lambda store: store.set_many(dict.fromkeys(MANY, "v")), b"0\t1\t1\n" * 100, 1_400, 14_000
    ),
}


def counted(sock: Endless, store: Store, name: str) -> Counter:
    """The third call: the first opens an index, the second fills what is kept for the next."""
    call, reply, _, _ = OPERATIONS[name]
    sock.reply = b"0\t1\n" + reply
    call(store)
    sock.reply = reply
    call(store)
    counter = Counter()
    counter.run(lambda: call(store))
    return counter


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_operation_runs_through_more_bytecodes(sock: Endless, store: Store, name: str) -> None:
    most = OPERATIONS[name]
    bound = most.compiled if hskv.codec_implementation == "cython" else most.pure
    assert 0.5 * bound < counted(sock, store, name).opcodes <= bound


def test_get_reaches_the_socket_in_a_few_calls(sock: Endless, store: Store) -> None:
    frames = counted(sock, store, "get").deepest
    assert frames <= (5 if hskv.codec_implementation == "cython" else 8)
