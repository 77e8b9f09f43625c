import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hskv import exceptions
from hskv.exceptions import OperationalError, ProtocolError
from hskv.wire import replies
from hskv.wire.codec import encode_tokens
from hskv.wire.replies import (
    Reply,
    ReplyReader,
    Row,
    generated_id,
    modified_rows,
    operational_error,
)

FORMS: list[tuple[bytes, list[tuple[bytes | None, ...]]]] = [
    (b"0\t1", []),
    (b"0\t4", []),
    (b"0\t0", []),
    (b"0\t1\t17", [(b"17",)]),
    (b"0\t1\t", [(b"",)]),
    (b"0\t1\t\x00", [(None,)]),
    (b"0\t1\t\x01@", [(b"\x00",)]),
    (b"0\t2\ta\tb", [(b"a", b"b")]),
    (b"0\t2\ta\t\x00\t\t\x01J", [(b"a", None), (b"", b"\n")]),
    (b"0\t1\ta\tb\tc", [(b"a",), (b"b",), (b"c",)]),
    (b"0\t4096" + b"\tx" * 4096, [(b"x",) * 4096]),
]


def decode_reply(line: bytes) -> Reply:
    (reply,) = ReplyReader().feed(line)
    return reply


@pytest.mark.parametrize(("line", "rows"), FORMS, ids=[repr(line[:20]) for line, _ in FORMS])
def test_success_gives_rows(line: bytes, rows: Reply) -> None:
    assert decode_reply(line + b"\n") == rows


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"0",
        b"1",
        b"\t",
        b"0\t",
        b"0\t\x00",
        b"\x00\t1",
        b"0\tx",
        b"0\t-1",
        b"0\t+1\ta",
        b"0\t1.0",
        b"0\t01",
        b"0\t4097\ta",
        b"0\t0\ta",
        b"0\t2\ta",
        b"0\t2\ta\tb\tc",
        b"00\t1",
        b"4\t1\tx",
        b"11\t1\tx",
        b"-1\t1\tx",
        b"x\t1\tx",
        b"2\t1\t\x00",
        b"0\t1\t\x01",
        b"0\t1\t\x01\x50",
        b"J\x00\x00\x00",
        b"HTTP/1.1 400 Bad Request",
    ],
    ids=repr,
)
def test_what_is_no_reply_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="no reply of HandlerSocket"):
        decode_reply(line + b"\n")


def test_a_protocol_error_shows_the_beginning_only() -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_reply(b"x" * 10_000 + b"\n")
    assert "xxx" in str(caught.value)
    assert len(str(caught.value)) < 400


KINDS = {
    (1, "121"): exceptions.DuplicateKeyError,
    (1, "open_table"): exceptions.TableNotFoundError,
    (1, "lock_tables"): exceptions.LockTimeoutError,
    (1, "146"): exceptions.LockTimeoutError,
    (1, "147"): exceptions.TransactionAbortedError,
    (1, "149"): exceptions.TransactionAbortedError,
    (1, "200"): exceptions.TransactionAbortedError,
    (2, "readonly"): exceptions.ReadOnlyError,
    (2, "idxnum"): exceptions.IndexNotFoundError,
    (2, "fld"): exceptions.ColumnNotFoundError,
    (3, "unauth"): exceptions.AuthenticationError,
    (3, "authtype"): exceptions.AuthenticationError,
}
ALL = [*replies._ERRORS, (1, "151"), (1, "999"), (2, "newword"), (3, "new words")]


@pytest.mark.parametrize(("code", "reason"), ALL)
def test_server_codes_become_exceptions(code: int, reason: str) -> None:
    error = decode_reply(f"{code}\t1\t{reason}\n".encode())
    assert isinstance(error, OperationalError)
    assert type(error) is KINDS.get((code, reason), OperationalError)
    assert (error.code, error.reason) == (code, reason)
    assert str(error).startswith(f"the server answered {code} {reason}: ")


def test_every_special_exception_is_in_the_table() -> None:
    assert set(KINDS) <= set(replies._ERRORS)


def test_an_unknown_number_points_to_perror() -> None:
    assert "perror" in str(operational_error(1, "999"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [(b"2\t1", ""), (b"2\t1\ta\tb", "a b"), (b"1\t1\t\xff", "\N{REPLACEMENT CHARACTER}")],
)
def test_odd_words_of_an_error_are_kept(line: bytes, reason: str) -> None:
    error = decode_reply(line + b"\n")
    assert isinstance(error, OperationalError)
    assert error.reason == reason


STREAM = b"0\t1\n0\t2\ta\t\x00\n1\t1\t121\n0\t1\t\x01J\n"
MEANINGS = ["[]", "[(b'a', None)]", "121", "[(b'\\n',)]"]


def meaning(reply: Reply) -> str:
    return str(reply.reason) if isinstance(reply, OperationalError) else repr(reply)


def fed(reader: ReplyReader, data: bytes) -> list[str]:
    return [meaning(reply) for reply in reader.feed(data)]


def test_a_reader_fed_whole_gives_every_reply() -> None:
    reader = ReplyReader()
    assert reader.empty
    assert fed(reader, STREAM) == MEANINGS
    assert reader.empty


def test_a_reader_fed_byte_by_byte_gives_each_reply_with_its_last_byte() -> None:
    reader, taken = ReplyReader(), []
    for number in range(len(STREAM)):
        replies_now = fed(reader, STREAM[number : number + 1])
        assert bool(replies_now) == (STREAM[number] == 0x0A)
        assert reader.empty == bool(replies_now)
        taken += replies_now
    assert taken == MEANINGS


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_a_reader_fed_in_two_parts_gives_the_same(cut: int) -> None:
    reader = ReplyReader()
    taken = fed(reader, STREAM[:cut])
    assert len(taken) == STREAM[:cut].count(b"\n")
    assert taken + fed(reader, STREAM[cut:]) == MEANINGS
    assert reader.empty


def received(reader: ReplyReader, data: bytes) -> list[str]:
    """As `fed`, as from a socket."""
    meanings = []
    while data:
        with reader.get_buffer() as room:
            part = data[: len(room)]
            room[: len(part)] = part
        meanings += [meaning(reply) for reply in reader.buffer_updated(len(part))]
        data = data[len(part) :]
    return meanings


@pytest.mark.parametrize("cut", range(1, len(STREAM)))
def test_a_reader_that_receives_gives_the_same(cut: int) -> None:
    reader = ReplyReader()
    assert fed(reader, STREAM[:cut]) + received(reader, STREAM[cut:]) == MEANINGS
    assert reader.empty
    assert received(reader, STREAM[:cut]) + received(reader, STREAM[cut:]) == MEANINGS
    assert reader.empty


@pytest.mark.parametrize("size", [1 << 16, (1 << 18) - 4, 1 << 18, 5 << 20, 40 << 20])
def test_long_replies(size: int) -> None:
    line = b"0\t1\t" + bytes(range(16, 256)) * (size // 240) + b"\n"
    reader = ReplyReader()
    assert reader.feed(line[:100]) == []
    for start in range(100, len(line), 1 << 20):
        replies = reader.feed(line[start : start + (1 << 20)])
    assert replies == [[(line[4:-1],)]]
    assert reader.empty


def test_readers_share_no_buffer_at_the_same_time() -> None:
    for _ in range(3):
        readers = [ReplyReader() for _ in range(9)]
        for number, reader in enumerate(readers):
            assert received(reader, b"0\t1\t%d" % number) == []
        for number, reader in enumerate(readers):
            assert received(reader, b"0\n") == [f"[(b'{number}0',)]"]


def test_what_a_reply_left_in_a_buffer_is_no_part_of_the_next() -> None:
    for _ in range(3):
        reader = ReplyReader()
        assert received(reader, b"0\t1\t" + b"x" * 5_000) == []
        assert len(received(reader, b"\n")) == 1
        assert received(reader, b"0\t1\ty") == []
        assert received(reader, b"z\n") == ["[(b'yz',)]"]


def test_a_received_first_byte_that_is_no_digit_is_found_at_once() -> None:
    reader = ReplyReader()
    assert received(reader, b"0\t1\n") == ["[]"]
    with pytest.raises(ProtocolError, match="no reply of HandlerSocket: b'Host"):
        received(reader, b"Host is blocked")


def test_nothing_fed_gives_nothing() -> None:
    reader = ReplyReader()
    assert reader.feed(b"") == []
    assert reader.empty


def test_trailing_bytes_stay_for_the_next_reply() -> None:
    reader = ReplyReader()
    assert fed(reader, b"0\t1\t1\n0\t1") == ["[(b'1',)]"]
    assert not reader.empty
    assert fed(reader, b"\t2\n") == ["[(b'2',)]"]
    assert reader.empty


def test_a_first_byte_that_is_no_digit_is_found_at_once() -> None:
    for byte in set(range(256)) - set(b"0123456789\n"):
        reader = ReplyReader()
        assert reader.feed(b"0\t1\n") == [[]]
        with pytest.raises(ProtocolError):
            reader.feed(bytes([byte]))


def test_a_reply_without_an_end_is_bounded() -> None:
    reader = ReplyReader(max_bytes=8)
    assert reader.feed(b"0\t1\tabcd") == []
    with pytest.raises(ProtocolError, match="within 8 bytes"):
        reader.feed(b"e")


def test_the_bound_is_for_the_unfinished_reply_alone() -> None:
    reader = ReplyReader(max_bytes=8)
    for _ in range(3):
        assert fed(reader, b"0\t1\n0\t1\n0\t1\n0\t") == ["[]"] * 3
        assert fed(reader, b"1\t\n") == ["[(b'',)]"]
    assert reader.empty


def test_a_whole_line_past_the_bound_is_let_through() -> None:
    assert fed(ReplyReader(max_bytes=8), b"0\t1\tabcdefgh\n") == ["[(b'abcdefgh',)]"]


@given(
    parts=st.lists(
        st.binary(max_size=20)
        | st.lists(st.sampled_from(b"0123\t\n\x00\x01@J12"), max_size=20).map(bytes)
        | st.sampled_from([line + b"\n" for line, _ in FORMS[:-1]])
    ),
    bound=st.integers(1, 64),
)
def test_any_bytes_give_replies_or_a_protocol_error(parts: list[bytes], bound: int) -> None:
    reader = ReplyReader(max_bytes=bound)
    with contextlib.suppress(ProtocolError):
        for part in parts:
            assert all(isinstance(reply, (list, OperationalError)) for reply in reader.feed(part))


@given(
    width=st.integers(1, 4),
    cells=st.lists(st.none() | st.binary(max_size=8), max_size=12),
    sizes=st.lists(st.integers(1, 9), min_size=1),
)
def test_rows_survive_any_cutting(width: int, cells: list[bytes | None], sizes: list[int]) -> None:
    cells = cells[: len(cells) // width * width]
    rows = [tuple(cells[i : i + width]) for i in range(0, len(cells), width)]
    stream = encode_tokens([b"0", b"%d" % width, *cells]) + b"\n"
    reader = ReplyReader()
    taken: list[Reply] = []
    while stream:
        size = sizes[len(stream) % len(sizes)]
        taken += reader.feed(stream[:size])
        stream = stream[size:]
    assert taken == [rows]


def test_the_count_of_a_write_is_read() -> None:
    assert modified_rows([(b"0",)]) == 0
    assert modified_rows([(b"17",)]) == 17


def test_the_number_that_an_insert_made_is_read() -> None:
    assert generated_id([]) is None
    assert generated_id([(b"0",)]) is None
    assert generated_id([(b"17",)]) == 17
    with pytest.raises(exceptions.OutcomeUnknownError, match="no number"):
        generated_id([(b"x",)])


@pytest.mark.parametrize("rows", [[], [(None,)], [(b"",)], [(b"x",)], [(b"1",), (b"2",)]])
def test_a_write_answered_without_a_count_is_of_unknown_outcome(rows: list[Row]) -> None:
    with pytest.raises(exceptions.OutcomeUnknownError, match="number of rows"):
        modified_rows(rows)
