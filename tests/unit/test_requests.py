from collections.abc import Callable
from enum import IntEnum
from typing import Any

import pytest

from hskv.wire.codec import fill
from hskv.wire.requests import (
    FILTER_OPERATIONS,
    FIND_OPERATIONS,
    INT64_MAX,
    INT64_MIN,
    MAX_COUNT,
    MAX_IN,
    MODIFY_OPERATIONS,
    Filter,
    In,
    auth,
    filters_template,
    find,
    find_in,
    find_modify,
    find_modify_template,
    find_one,
    find_template,
    insert,
    open_index,
    token,
)

Build = Callable[[], object]


class Colour(IntEnum):
    RED = 3


class Text(str):
    __slots__ = ()


class Raw(bytes):
    __slots__ = ()


LINES: list[tuple[Build, bytes]] = [
    (lambda: auth(b"secret"), b"A\t1\tsecret\n"),
    (lambda: auth(b""), b"A\t1\t\n"),
    (lambda: auth(b"a\tb"), b"A\t1\ta\x01Ib\n"),
    (lambda: open_index(0, "db", "t", "PRIMARY", ["k"]), b"P\t0\tdb\tt\tPRIMARY\tk\n"),
    (
        lambda: open_index(17, "d b", "t.x", "b", ("k", "v"), ("e", "n")),
        b"P\t17\td b\tt.x\tb\tk,v\te,n\n",
    ),
    (
        lambda: open_index(1, "dü", "t", "i", ["`c"], []),
        b"P\t1\td\xc3\xbc\tt\ti\t`c\n",
    ),
    (lambda: find("=", [b"k"]), b"\t=\t1\tk\t1\t0\n"),
    (lambda: find("=", [b""]), b"\t=\t1\t\t1\t0\n"),
    (lambda: find("=", [None, b"\x00"]), b"\t=\t2\t\x00\t\x01@\t1\t0\n"),
    (lambda: find(">=", [b"a", b"b"], 10, 5), b"\t>=\t2\ta\tb\t10\t5\n"),
    (lambda: find("=", [b"k"], 1, 1), b"\t=\t1\tk\t1\t1\n"),
    (lambda: find("=", [b"k"], MAX_COUNT), b"\t=\t1\tk\t4294967295\t0\n"),
    (lambda: find("=", [b"k"], 1, MAX_COUNT - 1), b"\t=\t1\tk\t1\t4294967294\n"),
    (
        lambda: find("=", [b""], 2, in_=In(0, [b"a", b"\t"])),
        b"\t=\t1\t\t2\t0\t@\t0\t2\ta\t\x01I\n",
    ),
    (
        lambda: find("=", [b"x", b""], 3, in_=In(1, [b"a"])),
        b"\t=\t2\tx\t\t3\t0\t@\t1\t1\ta\n",
    ),
    (
        lambda: find("<", [b"k"], filters=[Filter(0, ">", b"5"), Filter(2, "!=", None, True)]),
        b"\t<\t1\tk\t1\t0\tF\t>\t0\t5\tW\t!=\t2\t\x00\n",
    ),
    (
        lambda: find("=", [b""], 1, in_=In(0, [b"a"]), filters=[Filter(0, "=", b"")]),
        b"\t=\t1\t\t1\t0\t@\t0\t1\ta\tF\t=\t0\t\n",
    ),
    (lambda: find("=", [b"v"] * 32), b"\t=\t32" + b"\tv" * 32 + b"\t1\t0\n"),
    (lambda: insert([b"k", None, b"", b"\n"]), b"\t+\t4\tk\t\x00\t\t\x01J\n"),
    (lambda: insert([b"v"] * 32), b"\t+\t32" + b"\tv" * 32 + b"\n"),
    (lambda: find_modify("=", [b"k"], "U", [b"a", None]), b"\t=\t1\tk\t1\t0\tU\ta\t\x00\n"),
    (lambda: find_modify("=", [b"k"], "D"), b"\t=\t1\tk\t1\t0\tD\n"),
    (lambda: find_modify("=", [b"k"], "D?"), b"\t=\t1\tk\t1\t0\tD?\n"),
    (lambda: find_modify("=", [b"k"], "+", [b"-1"]), b"\t=\t1\tk\t1\t0\t+\t-1\n"),
    (lambda: find_modify("<=", [b"k"], "-?", [b"1"], 9, 1), b"\t<=\t1\tk\t9\t1\t-?\t1\n"),
    (
        lambda: find_modify(
            "=", [b""], "U?", [b"v"], 2, 0, In(0, [b"a", b"b"]), [Filter(1, "<=", b"9")]
        ),
        b"\t=\t1\t\t2\t0\t@\t0\t2\ta\tb\tF\t<=\t1\t9\tU?\tv\n",
    ),
    (lambda: fill(find_template([]), (b"k",)), b"\t=\t1\tk\t1\t0\n"),
    (
        lambda: fill(find_template([(0, ">"), (2, "!=")]), (b"%d", 5, -1)),
        b"\t=\t1\t%d\t1\t0\tF\t>\t0\t5\tF\t!=\t2\t-1\n",
    ),
]


@pytest.mark.parametrize(("build", "line"), LINES, ids=[repr(line[:40]) for _, line in LINES])
def test_a_builder_gives_exactly_these_bytes(build: Build, line: bytes) -> None:
    assert build() == line


@pytest.mark.parametrize("operation", FIND_OPERATIONS)
def test_every_find_operation_stands_as_it_is(operation: str) -> None:
    assert find(operation, [b"k"]) == b"\t%b\t1\tk\t1\t0\n" % operation.encode()


@pytest.mark.parametrize("operation", FILTER_OPERATIONS)
def test_every_filter_operation_stands_as_it_is(operation: str) -> None:
    wire = operation.encode()
    line = b"\t=\t1\tk\t1\t0\tF\t%b\t3\t7\n" % wire
    assert find("=", [b"k"], filters=[Filter(3, operation, b"7")]) == line
    assert fill(find_template([(3, operation)]), (b"k", 7)) == line


@pytest.mark.parametrize("operation", MODIFY_OPERATIONS)
def test_every_modify_operation_stands_as_it_is(operation: str) -> None:
    values = [] if operation[0] == "D" else [b"1"]
    line = find_modify("=", [b"k"], operation, values)
    assert line == b"\t".join([b"\t=\t1\tk\t1\t0", operation.encode(), *values]) + b"\n"


def test_the_longest_in_list_is_sent() -> None:
    line = find("=", [b""], MAX_IN, in_=In(0, [b"x"] * MAX_IN))
    assert line == b"\t=\t1\t\t1000\t0\t@\t0\t1000" + b"\tx" * MAX_IN + b"\n"


def one_filter(operation: str) -> Build:
    return lambda: find("=", [b"k"], filters=[Filter(0, operation, b"1")])


def one_in(column: int, values: list[bytes | None], limit: int) -> Build:
    return lambda: find("=", [b"k"], limit, in_=In(column, values))


REFUSED: list[tuple[str, Build, str]] = [
    *[
        (f"operation {operation!r}", lambda o=operation: find(o, [b"k"]), "operation")
        for operation in ("", "<>", "!=", "==", "S", "+", "=\t", "like", " =")
    ],
    *[
        (f"filter {operation!r}", one_filter(operation), "filter operation")
        for operation in ("", "<>", "==", "=>", "like", "~", ">>")
    ],
    *[
        (
            f"modify {operation!r}",
            lambda o=operation: find_modify("=", [b"k"], o, [b"v"]),
            "modify operation",
        )
        for operation in ("", "u", "X", "Delete", "U??", "?", "++")
    ],
    ("modify of operation <>", lambda: find_modify("<>", [b"k"], "D"), "operation '<>'"),
    ("no key", lambda: find("=", []), "0 key values"),
    ("33 key values", lambda: find("=", [b"k"] * 33), "33 key values"),
    ("no values", lambda: insert([]), "0 values"),
    ("33 values", lambda: insert([b"v"] * 33), "33 values"),
    ("modify with 33 key values", lambda: find_modify("=", [b"k"] * 33, "D"), "33 key values"),
    ("limit 0", lambda: find("=", [b"k"], 0), "limit 0"),
    ("limit -1", lambda: find("=", [b"k"], -1), "limit -1"),
    ("limit 2**32", lambda: find("=", [b"k"], 2**32), "limit 4294967296"),
    ("offset -1", lambda: find("=", [b"k"], 1, -1), "offset -1"),
    ("limit and offset wrap", lambda: find("=", [b"k"], MAX_COUNT, 1), "outside 1 to"),
    ("limit and large offset", lambda: find("=", [b"k"], 1, MAX_COUNT), "outside 1 to"),
    ("D with values", lambda: find_modify("=", [b"k"], "D", [b"v"]), "takes no values"),
    ("D? with values", lambda: find_modify("=", [b"k"], "D?", [b"v"]), "takes no values"),
    ("IN with NULL", one_in(0, [b"a", None], 2), "NULL"),
    ("IN with nothing", one_in(0, [], 2), "0 IN values"),
    ("IN past the limit", one_in(0, [b"a", b"b"], 1), "2 IN values"),
    ("IN of 1001", one_in(0, [b"x"] * 1001, 2000), "1001 IN values"),
    ("IN on a missing key part", one_in(1, [b"a"], 1), "key part 1"),
    ("IN on key part -1", one_in(-1, [b"a"], 1), "key part -1"),
    ("no columns", lambda: open_index(1, "d", "t", "i", []), "at least one column"),
]


@pytest.mark.parametrize(
    ("build", "says"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_the_server_would_misread_is_refused(build: Build, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        build()


@pytest.mark.parametrize(
    "bad", ["a,b", "a\tb", "a\nb", "a\0b", "\0", "a\r", "\x01", "\x0f", "\ud800"]
)
def test_names_the_protocol_cannot_carry_are_refused(bad: str) -> None:
    for place in range(5):
        names = ["d", "t", "i", "c", "f"]
        names[place] = bad
        database, table, index, column, filter_column = names
        with pytest.raises(ValueError):  # noqa: PT011 the encoder's own words for a surrogate
            open_index(1, database, table, index, ["x", column], ["y", filter_column])


@pytest.mark.parametrize(
    "names", [("", "t", "b"), ("d", "", "b"), ("d", "t", ""), ("d", "t", "2nd")]
)
def test_names_the_server_would_misread_are_refused(names: tuple[str, str, str]) -> None:
    with pytest.raises(ValueError, match=r"empty name|begins with a digit"):
        open_index(0, *names, ["k"])
    with pytest.raises(ValueError, match="empty name"):
        open_index(0, "d", "t", "b", [""])


def test_a_byte_from_0x10_may_stand_in_a_name() -> None:
    assert open_index(1, "\x10", "t", "i", ["c"]) == b"P\t1\t\x10\tt\ti\tc\n"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (b"", b""),
        (b"\x00\xff", b"\x00\xff"),
        ("", b""),
        ("grün", "grün".encode()),
        (0, b"0"),
        (-7, b"-7"),
        (INT64_MAX, b"9223372036854775807"),
        (INT64_MIN, b"-9223372036854775808"),
        (Colour.RED, b"3"),
        (Text("x"), b"x"),
        (Raw(b"x"), b"x"),
        (bytearray(b"x"), b"x"),
        (memoryview(b"xyz")[1:], b"yz"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_become_tokens(value: Any, expected: bytes | None) -> None:
    made = token(value)
    assert made == expected
    assert type(made) in (bytes, type(None))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, TypeError),
        (False, TypeError),
        (1.0, TypeError),
        ([], TypeError),
        (object(), TypeError),
        (INT64_MAX + 1, ValueError),
        (INT64_MIN - 1, ValueError),
        ("\udc80", ValueError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
def test_values_that_are_no_tokens_are_refused(value: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        token(value)


def test_a_template_of_a_change_is_filled_with_key_filters_and_values() -> None:
    template = find_modify_template("+?", [(0, "="), (2, "<=")], [b"%b", b"%d"])
    filled = fill(template, (b"key", 2, 9, b"1", 1))
    filters = [Filter(0, "=", b"2"), Filter(2, "<=", b"9")]
    assert filled == find_modify("=", [b"key"], "+?", [b"1", b"1"], filters=filters)
    template = find_modify_template("U", [], [b"%b"])
    assert fill(template, (b"k", b"v")) == find_modify("=", [b"k"], "U", [b"v"])


@pytest.mark.parametrize(("limit", "offset"), [(1.5, 0), (2, 0.5), ("2", 0)])
def test_a_limit_that_is_no_integer_is_refused(limit: Any, offset: Any) -> None:
    with pytest.raises(TypeError, match="integers"):
        find("=", [b"k"], limit, offset)


@pytest.mark.parametrize("key", ["a\tb", "\N{SNOWMAN}", b"\x00", 17, None])
def test_a_find_of_one_key_is_the_same_line(key: str | bytes | int | None) -> None:
    assert find_one(">=", key) == find(">=", [token(key)])


def test_a_find_of_one_key_checks_its_operation() -> None:
    with pytest.raises(ValueError, match="operation"):
        find_one("<>", "a")


def test_a_find_of_many_keys_is_the_same_line() -> None:
    keys = [b"a", b"b\tc", b"\x01"]
    filters = fill(filters_template([(1, ">"), (2, "!=")]), (5, -1))
    line = find_in(keys, filters)
    asked = [Filter(1, ">", b"5"), Filter(2, "!=", b"-1")]
    assert line == find("=", [b""], 3, 0, In(0, keys), asked)
