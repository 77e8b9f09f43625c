"""Feeds bytes to `hskv_fast`, and holds it to its twin in pure Python.

Under AddressSanitizer (see tools/fuzz_codec.sh) a read or write outside a buffer ends it; without,
what it does not give back of memory is counted. Arguments: how many inputs, and a seed.
"""

import os
import random
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import hskv_fast
from hskv.wire import _codec

PIECES = (
    *(b"", b"\x00", b"\x01", b"\x01@", b"\x01O", b"\x01P", b"\x01?", b"\t", b"\n", b"0", b"1"),
    *(b"4096", b"4097", b"99999999999999999999", b"00", b"-1", b"abc", b"\xff" * 9, b"x" * 70),
    *(bytes(range(16)), bytes(range(256)), b"\t" * 33, b"\x01A" * 17, b"\x01" * 8),
)
HEADS = (b"", b"0\t", b"0\t1", b"0\t2\t", b"0\t4096\t", b"1\t1\t121", b"2\t1\t", b"0\t0")
FUNCTIONS = ("decode_tokens", "decode_rows", "decode_replies", "encode_token")
ALLOWED_BLOCKS = 200


def inputs(chance: random.Random) -> Iterator[bytes]:
    """Bytes that look like replies, cut anywhere, and bytes that do not."""
    while True:
        body = b"".join(chance.choices(PIECES, k=chance.randrange(12)))
        data = chance.choice(HEADS) + body + chance.choice((b"", b"\n", b"\n"))
        if chance.random() < 0.3:
            data = data[: chance.randrange(len(data) + 1)]
        if chance.random() < 0.05:
            data += chance.randbytes(chance.randrange(5_000))
        yield data


def outcome(function: Callable[[Any], Any], argument: Any) -> Any:
    """What it gives, or the kind of error it raises."""
    try:
        return function(argument)
    except (TypeError, ValueError) as error:
        return type(error), str(error).partition(":")[0]


def compare(data: bytes) -> None:
    """Both do the same."""
    for name in FUNCTIONS:
        ours = outcome(getattr(hskv_fast, name), data)
        theirs = outcome(getattr(_codec, name), data)
        if repr(ours) != repr(theirs) and not same_kind(ours, theirs):
            sys.exit(f"{name}({data!r}): {ours!r}, not {theirs!r}")
    tokens = [None if part == b"\x00" else part for part in data.split(b"a")]
    if hskv_fast.encode_tokens(tokens) != _codec.encode_tokens(tokens):
        sys.exit(f"encode_tokens({tokens!r})")
    values = [len(data) - 40 if token is None else token for token in tokens]
    template = b"\t".join([b"%b" if isinstance(value, bytes) else b"%d" for value in values[:60]])
    for taken in (values[:60], [*values[:30], 2**63 - len(data) - 1, "a"][: len(data)]):
        ours, theirs = (outcome(partial(m.fill, template), taken) for m in (hskv_fast, _codec))
        if ours != theirs and not same_kind(ours, theirs):
            sys.exit(f"fill({template!r}, {taken!r}): {ours!r}, not {theirs!r}")


def same_kind(ours: Any, theirs: Any) -> bool:
    """Errors of one type: what is wrong first may be another thing."""
    pair = (ours, theirs)
    return all(type(one) is tuple and one and isinstance(one[0], type) for one in pair) and (
        ours[0] is theirs[0]
    )


def main() -> None:
    """Compare, then count what is kept of memory."""
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else os.getpid()
    chance = random.Random(seed)
    source = inputs(chance)
    for _ in range(count):
        compare(next(source))
    sanitized = os.environ.get("PYTHONMALLOC")
    how = f"under AddressSanitizer ({hskv_fast.__file__})" if sanitized else "as it is installed"
    print(f"{count:,} inputs, seed {seed}, {how}: as in pure Python")
    if sanitized:
        return
    some = [next(source) for _ in range(200)]
    functions = [getattr(hskv_fast, name) for name in FUNCTIONS]
    blocks = []
    for _ in range(2):
        for _ in range(50):
            for data in some:
                for function in functions:
                    outcome(function, data)
                outcome(hskv_fast.encode_tokens, data.split(b"a"))
                outcome(hskv_fast.encode_tokens, [data, 1])
                outcome(partial(hskv_fast.fill, b"%b\t%b\n"), [data, data])
                outcome(partial(hskv_fast.fill, b"%b\t%d\n"), [data, data])
                outcome(partial(hskv_fast.fill, b"%d"), [len(data) << 40])
        blocks.append(sys.getallocatedblocks())
    kept = blocks[1] - blocks[0]
    if kept > ALLOWED_BLOCKS:
        sys.exit(f"{kept} blocks of memory were not given back")
    print(f"{kept} blocks of memory more after 50 rounds of 200 inputs")


if __name__ == "__main__":
    main()
