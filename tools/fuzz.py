"""Feeds bytes to the reply reader and the URL parser, guided by what of their code they reach.

`make fuzz ARGS="replies 10000000"`; without arguments both, briefly. An exception that is none of
those promised ends the run with the input that caused it. atheris has no wheels for every Python:
where there is none, there is nothing to run.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

try:
    import atheris
except ImportError:
    sys.exit("fuzz: atheris has no wheel for this Python; nothing was run")

with atheris.instrument_imports(include=["hskv"]):
    from hskv.exceptions import HandlerSocketError, OperationalError, ProtocolError
    from hskv.transport.address import load_settings
    from hskv.wire import requests
    from hskv.wire.replies import NoRows, ReplyReader, checked_columns, generated_id, modified_rows

SHORT_RUNS: Final = 100_000
LONGEST_INPUT: Final = 512
LIMIT_BYTES: Final = 256
SEEDS: Final[dict[str, list[bytes]]] = {
    "replies": [
        b"0\t1\n",
        b"0\t3\ta\tb\t\x00\n",
        b"0\t2\tone\ttwo\tthree\t\x01@\x01I\n",
        b"1\t1\t121\n2\t1\tstmtnum\n3\t1\tunauth\n",
        b"0\t1\t18446744073709551615\n",
    ],
    "urls": [
        b"hskv://:secret@127.0.0.1:9998,9999/database/table?timeout=1&replica=h:1",
        b"hskv+unix://:s%20e@/d/t?read=/a.sock&write=/b.sock&prefix=p",
    ],
}


def fuzz_replies(data: bytes) -> None:
    """The same replies however the bytes are cut, or ProtocolError; never anything else."""
    cut = data[0] if data else 0
    data = data[1:]
    whole, parted = outcome([data]), outcome([data[:cut], data[cut:]])
    if whole != parted:
        raise AssertionError(f"{data!r} depends on where it is cut: {whole} or {parted}")


def outcome(parts: list[bytes]) -> list[object]:
    """What a reader makes of bytes that come in parts."""
    reader, made = ReplyReader(LIMIT_BYTES), list[object]()
    try:
        for part in parts:
            for reply in reader.feed(part):
                made.append(described(reply))
    except ProtocolError:
        # It is told as soon as it is known, which depends on the parts.
        return ["nonsense"]
    return made


def described(reply: object) -> object:
    """A reply as a plain value, after everything that is done with one."""
    if isinstance(reply, OperationalError):
        return (type(reply), reply.code, reply.reason)
    assert isinstance(reply, list)
    for use in (modified_rows, generated_id, lambda rows: checked_columns(rows, 2)):
        with suppress(HandlerSocketError):
            use(reply)
    return (reply.columns if isinstance(reply, NoRows) else len(reply[0]), list(reply))


def fuzz_urls(data: bytes) -> None:
    """Settings, or ValueError; and no secret in what is shown of them."""
    text = data.decode("utf-8", "surrogateescape")
    has_secret = re.match(r"hskv(\+unix)?://:[^/?#]*@", text) is not None
    for url in (text, text.replace("://:", "://:S3CR3T", 1) if has_secret else text):
        try:
            settings = load_settings(url)
            requests.open_index(0, settings.database or "d", settings.table or "t", "x", ["k"])
        except (ValueError, HandlerSocketError) as error:
            shown = str(error)
        else:
            shown = repr(settings)
        if "S3CR3T" in shown and "S3CR3T" not in text:
            raise AssertionError(f"{url!r} shows its secret: {shown}")


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "replies": fuzz_replies,
    "urls": fuzz_urls,
}


def run(name: str, runs: int) -> None:
    """Fuzz one target; does not return."""
    with tempfile.TemporaryDirectory(prefix="hskv-fuzz-") as directory:
        for number, seed in enumerate(SEEDS[name]):
            Path(directory, str(number)).write_bytes(b"\x03" * (name == "replies") + seed)
        options = [f"-runs={runs}", f"-max_len={LONGEST_INPUT}", "-timeout=10", "-verbosity=1"]
        arguments = [sys.argv[0], *options, f"-artifact_prefix={tempfile.gettempdir()}/", directory]
        atheris.Setup(arguments, TARGETS[name])
        atheris.Fuzz()


def main() -> int:
    """Run a target, or each in a process of its own: the fuzzer ends its process."""
    if len(sys.argv) > 1:
        run(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else SHORT_RUNS)
    commands = [[sys.executable, sys.argv[0], name, str(SHORT_RUNS)] for name in TARGETS]
    return max(subprocess.run(command, check=False).returncode for command in commands)


if __name__ == "__main__":
    sys.exit(main())
