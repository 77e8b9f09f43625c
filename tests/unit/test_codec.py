import ast
import importlib
import importlib.util
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hskv.wire import codec

MODULES = ["hskv.wire._codec"]
if importlib.util.find_spec("hskv_fast") is not None:
    MODULES.append("hskv_fast")

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "codec.json").read_text())
SLICE = 1 << 16
# What a token looks like on the wire: raw bytes from 0x10, and escapes.
TOKEN = re.compile(rb"(?:[\x10-\xff]|\x01[\x40-\x4f])*", re.DOTALL)

Tokens = list[bytes | None]
# Bytes that need an escape, and those that look like one, more often than by chance.
token_bytes = st.binary() | st.lists(st.sampled_from(b"\x00\x01\t\n\r\x0f\x10@AO\xff")).map(bytes)
token_lists = st.lists(st.none() | token_bytes, min_size=1)


@pytest.fixture(params=MODULES, scope="module")
def implementation(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def unhex(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["says"])
def test_vectors_encode_and_decode(
    implementation: ModuleType, vector: dict[str, str | list[str | None]]
) -> None:
    tokens = [unhex(token) for token in vector["tokens"]]
    wire = bytes.fromhex(str(vector["wire"]))
    assert implementation.encode_tokens(tokens) == wire
    assert implementation.decode_tokens(wire) == tokens
    if len(tokens) == 1 and tokens[0] is not None:
        assert implementation.encode_token(tokens[0]) == wire


@given(tokens=token_lists)
def test_tokens_survive_the_round_trip(implementation: ModuleType, tokens: Tokens) -> None:
    assert implementation.decode_tokens(implementation.encode_tokens(tokens)) == tokens


@given(tokens=token_lists)
def test_encoded_text_holds_no_control_byte_but_escapes_tabs_and_null(
    implementation: ModuleType, tokens: Tokens
) -> None:
    parts = implementation.encode_tokens(tokens).split(b"\t")
    assert len(parts) == len(tokens)
    for token, part in zip(tokens, parts, strict=True):
        assert part == b"\x00" if token is None else TOKEN.fullmatch(part)


@given(tokens=token_lists)
def test_tokens_are_encoded_one_by_one(implementation: ModuleType, tokens: Tokens) -> None:
    each = [b"\x00" if token is None else implementation.encode_token(token) for token in tokens]
    assert implementation.encode_tokens(tokens) == b"\t".join(each)


@given(line=st.binary())
def test_any_line_gives_tokens_or_a_value_error(implementation: ModuleType, line: bytes) -> None:
    try:
        tokens = implementation.decode_tokens(line)
    except ValueError:
        assert b"\x01" in line
    else:
        assert len(tokens) == line.count(b"\t") + 1


def outcome(name: str, function: str, *arguments: object) -> object:
    try:
        return repr(getattr(importlib.import_module(name), function)(*arguments))
    except (ValueError, TypeError) as error:
        return type(error)


@given(line=st.binary() | st.lists(st.sampled_from(b"\x00\x01\t@OP")).map(bytes))
def test_all_implementations_agree_on_any_line(line: bytes) -> None:
    assert len({outcome(name, "decode_tokens", line) for name in MODULES}) == 1


@given(
    head=st.sampled_from([b"", b"0", b"1", b"0\t", b"0\t1", b"0\t2\t", b"0\t0", b"2\t1\t"]),
    line=st.binary() | st.lists(st.sampled_from(b"\x00\x01\t\n@OP0123")).map(bytes),
    end=st.sampled_from([b"\n", b""]),
)
def test_all_implementations_agree_on_any_reply(head: bytes, line: bytes, end: bytes) -> None:
    data = head + line + end
    for function in ("decode_rows", "decode_replies"):
        assert len({outcome(name, function, data) for name in MODULES}) == 1


@given(tokens=token_lists | st.lists(st.sampled_from([None, b"a", "a", 1])))
def test_all_implementations_agree_on_any_tokens(tokens: list[object]) -> None:
    assert len({outcome(name, "encode_tokens", tokens) for name in MODULES}) == 1


@pytest.mark.parametrize("token", ["a", 1, None, bytearray(b"a")])
def test_what_is_no_token_is_a_type_error(implementation: ModuleType, token: object) -> None:
    with pytest.raises(TypeError):
        implementation.encode_token(token)


INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 9, 10, 99, 100, -(2**63)])


@given(values=st.lists(token_bytes | INTEGERS), literal=st.sampled_from([b"", b"\t", b"F\t>\t"]))
def test_a_template_is_filled_with_tokens_and_integers(
    implementation: ModuleType, values: list[bytes | int], literal: bytes
) -> None:
    template = literal + b"\t".join([b"%d" if isinstance(v, int) else b"%b" for v in values])
    tokens = [b"%d" % v if isinstance(v, int) else v for v in values]
    line = literal + implementation.encode_tokens(tokens) + b"\n"
    assert implementation.fill(template + b"\n", values) == line
    assert implementation.fill_each(template + b"\n", [values, tuple(values)]) == [line, line]


@pytest.mark.parametrize(
    ("template", "values"),
    [
        *((b"%b", (1,)), (b"%d", (b"1",)), (b"%b", (None,)), (b"%b", ("a",))),
        *((b"%b", ()), (b"", (b"a",)), (b"%b%d", (b"a",)), (b"%d", (1, 2))),
    ],
)
def test_values_that_do_not_go_with_a_template(
    implementation: ModuleType, template: bytes, values: tuple[Any, ...]
) -> None:
    with pytest.raises(TypeError):
        implementation.fill(template, values)


@pytest.mark.parametrize("alphabet", [range(256), range(16), b"\x01\x02@A", b"ab\x01", b"ab"])
@pytest.mark.parametrize("size", [63, 64, 127, 128, 129, 191, 192, 193, 257, 1000])
def test_tokens_longer_than_what_is_looked_at_at_once(alphabet: bytes | range, size: int) -> None:
    chance = random.Random(size)
    for _ in range(20):
        token = bytes(chance.choices(alphabet, k=size))
        encoded = {outcome(name, "encode_token", token) for name in MODULES}
        assert len(encoded) == 1
        line = bytes(ast.literal_eval(str(encoded.pop())))
        place = chance.randrange(len(line))
        lines = [line, line[:-1], line[:place], line[:place] + b"\x01" + line[place:]]
        for each in lines:
            assert len({outcome(name, "decode_tokens", each) for name in MODULES}) == 1
        assert codec.decode_tokens(line) == [token]


REPLIES = [
    (b"0\t1\n", (b"0", 1, [])),
    (b"0\t0\n", (b"0", 0, [])),
    (b"0\t2\ta\t\x00\t\t\x01J\n", [(b"a", None), (b"", b"\n")]),
    (b"\x00\t1\tx\n", (None, 1, [(b"x",)])),
    (b"2\t1\n", (b"2", 1, [])),
    (b"1\t1\tnew\twords\n", (b"1", 1, [(b"new", b"words")])),
    (b"0\t4096" + b"\tx" * 8192 + b"\n", [(b"x",) * 4096] * 2),
]
NOT_ONE_LINE = [b"", b"0", b"0\t", b"0\t1", b"0\t1\ta", b"0\t1\ta\n\n", b"0\t1\ta\n0\t1\ta\n"]
NO_REPLIES = [
    *(b"\n", b"0\n", b"0\t\n", b"0\tx\n", b"0\t01\n", b"0\t-1\n", b"0\t4097\n", b"0\t99999\n"),
    *(b"0\t0\ta\n", b"0\t2\ta\n", b"0\t2\ta\tb\tc\n", b"0\t1\t\x01\n", b"\x01\t1\n", b"0\t\x01q\n"),
]


@pytest.mark.parametrize(("data", "meaning"), REPLIES, ids=lambda data: repr(data)[:20])
def test_replies(implementation: ModuleType, data: bytes, meaning: object) -> None:
    assert implementation.decode_replies(data) == ([meaning], len(data))


@pytest.mark.parametrize(("data", "meaning"), REPLIES, ids=lambda data: repr(data)[:20])
def test_rows_of_a_reply(implementation: ModuleType, data: bytes, meaning: object) -> None:
    assert implementation.decode_rows(data) == (meaning if isinstance(meaning, list) else None)


@pytest.mark.parametrize("data", [*NOT_ONE_LINE, *NO_REPLIES], ids=repr)
def test_what_is_not_one_reply_has_no_rows(implementation: ModuleType, data: bytes) -> None:
    assert implementation.decode_rows(data) is None


@pytest.mark.parametrize("data", NO_REPLIES, ids=repr)
def test_what_is_no_reply_is_a_value_error(implementation: ModuleType, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"reply|escape"):
        implementation.decode_replies(data)


def test_every_byte(implementation: ModuleType) -> None:
    for byte in range(256):
        raw = bytes([byte])
        wire = bytes([0x01, byte + 0x40]) if byte < 0x10 else raw
        for token, expected in ((raw, wire), (b"x" + raw + b"y", b"x" + wire + b"y")):
            assert implementation.encode_token(token) == expected
            assert implementation.encode_tokens([token, None]) == expected + b"\t\x00"
            assert implementation.decode_tokens(expected) == [token]


def test_null_empty_and_a_nul_byte_are_three_things(implementation: ModuleType) -> None:
    wires = [implementation.encode_tokens([token]) for token in (None, b"", b"\x00")]
    assert wires == [b"\x00", b"", b"\x01\x40"]
    assert implementation.decode_tokens(b"\t".join(wires)) == [None, b"", b"\x00"]


def test_a_raw_nul_inside_a_token_is_kept(implementation: ModuleType) -> None:
    assert implementation.decode_tokens(b"\x00\x00\ta\x00\t\x00") == [b"\x00\x00", b"a\x00", None]


def test_no_tokens_are_no_bytes(implementation: ModuleType) -> None:
    assert implementation.encode_tokens([]) == b""
    assert implementation.encode_tokens(()) == b""


@pytest.mark.parametrize(
    "line",
    [
        b"\x01",
        b"abc\x01",
        b"\x01\tx",
        b"x\t\x01",
        b"\x01\x3f",
        b"\x01\x50",
        b"\x01\x01",
        b"\x01\x41\x01",
        b"\x01\x00",
        b"\x01\xff",
        b"\x00\t\x01",
        b"x" * (SLICE - 1) + b"\x01",
        b"x" * (SLICE - 1) + b"\x01\x01",
        b"x" * (SLICE - 1) + b"\x01\x50" + b"y" * SLICE,
        b"x" * SLICE + b"\x01",
        b"x" * 3 * SLICE + b"\x01",
    ],
    ids=lambda line: f"{line[-3:]!r} of {len(line)}",
)
def test_malformed_escapes_are_value_errors(implementation: ModuleType, line: bytes) -> None:
    with pytest.raises(ValueError, match="escape"):
        implementation.decode_tokens(line)


@pytest.mark.parametrize("before", [*range(SLICE - 3, SLICE + 3), 2 * SLICE - 1, 2 * SLICE])
def test_an_escape_at_the_border_of_64_kib(implementation: ModuleType, before: int) -> None:
    token = b"x" * before + b"\x01\x00\t" + b"y" * SLICE
    wire = b"x" * before + b"\x01\x41\x01\x40\x01\x49" + b"y" * SLICE
    assert implementation.encode_token(token) == wire
    assert implementation.decode_tokens(wire + b"\tz") == [token, b"z"]


def test_a_large_token_of_escapes_alone(implementation: ModuleType) -> None:
    for token in (b"\x01" * SLICE, b"@" + b"\x00" * SLICE, bytes(range(16)) * (SLICE // 8)):
        assert implementation.decode_tokens(implementation.encode_tokens([token])) == [token]


def test_an_escape_at_the_border_of_64_kib_of_a_line_of_megabytes(
    implementation: ModuleType,
) -> None:
    token = b"x" * (SLICE - 1) + b"\x01" + b"y" * (1 << 22)
    assert implementation.decode_tokens(implementation.encode_tokens([token])) == [token]


def test_replies_of_a_packet_and_what_is_left_of_it(implementation: ModuleType) -> None:
    data = b"0\t1\t1\n1\t1\t121\n0\t2\ta\t\x00\n0\t1"
    replies = [[(b"1",)], (b"1", 1, [(b"121",)]), [(b"a", None)]]
    assert implementation.decode_replies(data) == (replies, len(data) - 3)
    assert implementation.decode_replies(data[:5]) == ([], 0)
    assert implementation.decode_replies(b"") == ([], 0)
    with pytest.raises(ValueError, match="reply"):
        implementation.decode_replies(b"0\t1\n0\tx\n")


def test_a_line_of_megabytes(implementation: ModuleType) -> None:
    large = b"x" * (1 << 22)
    tokens = [b"", None, large, b"\x00\x01\t" * SLICE, b"", None, large[:SLICE] + b"\x01"]
    assert implementation.decode_tokens(implementation.encode_tokens(tokens)) == tokens
    for malformed in (b"\x01", b"\x01\ty", b"\x01z"):
        with pytest.raises(ValueError, match="malformed escape"):
            implementation.decode_tokens(large + malformed)


def test_the_codec_in_use_is_one_of_those_tested() -> None:
    module = {"python": "hskv.wire._codec", "cython": "hskv_fast"}[codec.implementation]
    assert module in MODULES
    assert codec.encode_tokens is importlib.import_module(module).encode_tokens


def test_python_can_be_forced() -> None:
    name, module = codec._choose("python")
    assert (name, module.__name__) == ("python", "hskv.wire._codec")


def test_a_forced_codec_that_is_missing_is_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hskv_fast", None)
    with pytest.raises(ImportError, match="HSKV_IMPL=cython was asked for"):
        codec._choose("cython")


def test_unforced_the_compiled_codec_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = ModuleType("hskv_fast")
    monkeypatch.setitem(sys.modules, "hskv_fast", compiled)
    assert codec._choose(None) == ("cython", compiled)
    monkeypatch.setitem(sys.modules, "hskv_fast", None)
    assert codec._choose(None)[0] == "python"


def test_an_unknown_codec_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="HSKV_IMPL must be one of cython, python"):
        codec._choose("fortran")


@pytest.mark.parametrize(
    ("forced", "says"),
    [("rust", "ImportError: HSKV_IMPL must be one of"), ("python", "")],
)
def test_the_environment_chooses_the_codec(forced: str, says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import hskv; print(hskv.codec_implementation)"],
        env={**os.environ, "HSKV_IMPL": forced},
        capture_output=True,
        text=True,
    )
    assert says in done.stderr
    assert (done.returncode != 0) == bool(says)
    if forced == "python":
        assert done.stdout == "python\n"
