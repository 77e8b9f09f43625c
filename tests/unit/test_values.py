"""Values to columns and back, without a server."""

import enum
import math
import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hskv.exceptions import SerializationError, ValueTooLargeError
from hskv.store.expiry import checked, expires_ms, now_ms
from hskv.store.serializers import USER_KINDS
from hskv.store.table import NEVER, Table
from hskv.store.values import COMPRESSED, Kind, KindValues, RawValues
from hskv.store.verbs import Condition

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


PLAIN = KindValues(Table())
dumps, loads = PLAIN.dumps, PLAIN.loads


def through(value: object, values: KindValues | RawValues = PLAIN) -> Any:
    kind, number, data = values.dumps(value)
    return values.loads(data, b"%d" % number, b"%d" % kind)


@given(json_values | st.binary())
def test_a_value_comes_back_the_same_and_of_the_same_type(value: Any) -> None:
    try:
        stored = through(value)
    except SerializationError:
        # Only text that is no Unicode: as a value of its own it has no UTF-8.
        assert isinstance(value, str)
        return
    assert stored == value
    assert type(stored) is type(value)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"x", Kind.BYTES),
        (bytearray(b"x"), Kind.BYTES),
        (memoryview(b"x"), Kind.BYTES),
        ("x", Kind.TEXT),
        (2**63 - 1, Kind.INTEGER),
        (-(2**63), Kind.INTEGER),
        (2**63, Kind.JSON),
        (True, Kind.JSON),
        (None, Kind.JSON),
        (1.5, Kind.JSON),
        ([], Kind.JSON),
    ],
)
def test_kinds(value: object, kind: Kind) -> None:
    assert dumps(value)[0] == kind


def test_true_does_not_come_back_as_one() -> None:
    assert through(True) is True


def test_a_tuple_comes_back_as_a_list() -> None:
    assert through((1, (2,))) == [1, [2]]


def test_text_of_an_enum_comes_back_as_text() -> None:
    class Colour(enum.StrEnum):
        RED = "red"

    assert through(Colour.RED) == "red"


@pytest.mark.parametrize(
    "value",
    [{1: 2}, [{None: 1}], ({"a": {2.5: 1}},), math.nan, math.inf, {1, 2}, object(), "\ud800"],
)
def test_what_would_be_lost_or_changed_is_refused(value: object) -> None:
    with pytest.raises(SerializationError):
        dumps(value)


def test_what_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(SerializationError):
        dumps(loop)


@pytest.mark.parametrize(
    ("kind", "value"), [(b"3", b"{"), (b"3", b"[" * 100_000), (b"1", b"\xff"), (b"9", b"")]
)
def test_what_cannot_be_read_is_an_error(kind: bytes, value: bytes) -> None:
    with pytest.raises(SerializationError):
        loads(value, b"0", kind)


class Upper:
    """A serializer of one's own, which may fail in any way."""

    def __init__(self, kind: int = 6) -> None:
        self.kind = kind

    def dumps(self, value: Any) -> bytes:
        return repr(value).upper().encode()

    def loads(self, data: bytes) -> Any:
        raise LookupError(data)


ALIKE: list[list[Any]] = [["a", "", "\N{SNOWMAN}"], [b"a", b"", b"\x00"]]
NOT_ALIKE: list[list[Any]] = [
    ["a", b"a"],
    [1, 2],
    ["\ud800"],
    ["x" * (1 << 18), "x"],
    [bytearray(b"a")],
]


@pytest.mark.parametrize("values", ALIKE, ids=repr)
def test_values_alike_are_stored_as_each_alone(values: list[Any]) -> None:
    kind, cells = PLAIN.dumps_alike(values) or (None, [])
    assert [(kind, 0, cell) for cell in cells] == [dumps(value) for value in values]


@pytest.mark.parametrize("values", NOT_ALIKE, ids=lambda values: repr(values)[:20])
def test_what_is_not_alike_and_small_is_left_to_be_taken_one_by_one(values: list[Any]) -> None:
    assert PLAIN.dumps_alike(values) is None
    assert KindValues(Table(value_bytes=3)).dumps_alike(["a", "four"]) is None
    assert KindValues(Table(), compress_min_bytes=4).dumps_alike(["a", "four"]) is None


class TestSerializers:
    def test_a_row_says_by_which_it_is_read(self) -> None:
        stored = {name: KindValues(Table(), name).dumps([1]) for name in ("msgpack", "pickle")}
        assert {name: kind for name, (kind, _, _) in stored.items()} == {"msgpack": 4, "pickle": 5}
        both = KindValues(Table(), also_read=["pickle"])
        for kind, _, data in stored.values():
            assert both.loads(data, b"0", b"%d" % kind) == [1]

    def test_a_pickle_is_not_read_unless_it_was_chosen(self) -> None:
        _, _, data = KindValues(Table(), "pickle").dumps({1})
        with pytest.raises(SerializationError, match="kind 5"):
            loads(data, b"0", b"5")

    def test_msgpack_holds_what_json_does_not(self) -> None:
        assert through({1: [b"x", None]}, KindValues(Table(), "msgpack")) == {1: [b"x", None]}

    @pytest.mark.parametrize("value", [2**70, {1, 2}, object()])
    def test_what_msgpack_cannot_hold_is_refused(self, value: object) -> None:
        with pytest.raises(SerializationError):
            KindValues(Table(), "msgpack").dumps(value)

    def test_whatever_one_raises_is_a_serialization_error(self) -> None:
        values = KindValues(Table(), Upper())
        assert values.dumps(None) == (6, 0, b"NONE")
        with pytest.raises(SerializationError, match="LookupError"):
            through(None, values)

    def test_what_a_signal_handler_raises_meanwhile_is_none(self) -> None:
        def handler(number: int, frame: object) -> None:
            raise LookupError("of the handler")

        class Interrupted(Upper):
            def dumps(self, value: Any) -> bytes:
                if value is None:
                    signal.raise_signal(signal.SIGUSR1)
                return b""

            def loads(self, data: bytes) -> Any:
                signal.raise_signal(signal.SIGUSR1)

        before = signal.signal(signal.SIGUSR1, handler)
        values = KindValues(Table(), Interrupted())
        try:
            for call in (lambda: values.dumps(None), lambda: through({}, values)):
                with pytest.raises(LookupError, match="of the handler"):
                    call()
        finally:
            signal.signal(signal.SIGUSR1, before)

    @pytest.mark.parametrize(
        ("chosen", "error"), [("yaml", ValueError), (object(), TypeError), (Upper(5), ValueError)]
    )
    def test_what_is_no_serializer_is_refused(self, chosen: Any, error: type[Exception]) -> None:
        with pytest.raises(error):
            KindValues(Table(), chosen)

    def test_integers_go_through_it_where_there_is_no_number_column(self) -> None:
        values = KindValues(Table(number=None))
        assert values.dumps(5)[0] == Kind.JSON
        assert through(5, values) == 5

    @pytest.mark.parametrize("chosen", ["json", "msgpack", "pickle", Upper(USER_KINDS[-1])])
    def test_the_conditions_let_pass_just_what_can_be_read(self, chosen: Any) -> None:
        values = KindValues(Table(), chosen)
        for kind in range(40):
            assert values.reads(kind) is all(passes(one, kind) for one in values.readable)


def passes(condition: Condition, kind: int) -> bool:
    assert condition.column == "kind"
    return kind <= int(condition.value) if condition.operation == "<=" else kind != condition.value


class TestCompression:
    values = KindValues(Table(value_bytes=5_000), compress_min_bytes=10)

    @pytest.mark.parametrize("value", ["x" * 4_000, b"x" * 4_000, ["x" * 4_000]])
    def test_a_large_value_is_compressed(self, value: Any) -> None:
        kind, _, data = self.values.dumps(value)
        assert kind >= COMPRESSED
        assert len(data) < 100
        assert through(value, self.values) == value
        assert through(value, self.values) == loads(data, b"0", b"%d" % kind)

    @pytest.mark.parametrize("value", ["x" * 9, bytes(range(200))])
    def test_one_that_is_small_or_does_not_shrink_is_not(self, value: Any) -> None:
        assert self.values.dumps(value)[0] < COMPRESSED

    def test_what_grows_beyond_the_column_is_not_read(self) -> None:
        kind, _, data = KindValues(Table(), compress_min_bytes=1).dumps(b"\x00" * 10_000_000)
        with pytest.raises(SerializationError, match="larger than 5000 bytes"):
            self.values.loads(data, b"0", b"%d" % kind)

    def test_what_is_cut_short_is_not_read(self) -> None:
        _, _, data = self.values.dumps("x" * 4_000)
        with pytest.raises(SerializationError, match="cut short"):
            self.values.loads(data[:-3], b"0", b"17")

    def test_a_threshold_below_zero_is_refused(self) -> None:
        with pytest.raises(ValueError, match="compress_min_bytes"):
            KindValues(Table(), compress_min_bytes=-1)


class TestRawValues:
    table = Table(kind=None, value_bytes=10)

    def test_they_are_all_of_one_type(self) -> None:
        for value_type, value, other in ((bytes, b"x", "x"), (str, "é", b"x")):
            values = RawValues(self.table, value_type, None)
            assert through(value, values) == value
            assert values.reads(0)
            for wrong in (other, 5, None):
                with pytest.raises(SerializationError):
                    values.dumps(wrong)

    def test_or_all_go_through_a_serializer(self) -> None:
        values = RawValues(self.table, None, "json")
        assert values.dumps("x") == (0, 0, b'"x"')
        assert through(b"x".decode(), values) == "x"
        with pytest.raises(SerializationError):
            values.loads(b"{", b"0", b"0")

    def test_text_that_is_none_cannot_be_read(self) -> None:
        with pytest.raises(SerializationError):
            RawValues(self.table, str, None).loads(b"\xff", b"0", b"0")

    def test_a_value_wider_than_the_column_is_refused(self) -> None:
        with pytest.raises(ValueTooLargeError, match="11 bytes, the column 10"):
            RawValues(self.table, bytes, None).dumps(b"x" * 11)
        with pytest.raises(ValueTooLargeError):
            KindValues(Table(value_bytes=10)).dumps("x" * 11)

    @pytest.mark.parametrize(("value_type", "serializer"), [(None, None), (str, "json")])
    def test_one_of_both_is_chosen(self, value_type: Any, serializer: Any) -> None:
        with pytest.raises(ValueError, match="of one sort"):
            RawValues(self.table, value_type, serializer)

    def test_another_type_is_refused(self) -> None:
        with pytest.raises(TypeError, match="bytes or str"):
            RawValues(self.table, int, None)


@pytest.mark.parametrize("ttl", [0, -1, math.nan, math.inf, 101 * 365.25 * 86400, 0.0])
def test_a_ttl_out_of_range_is_refused(ttl: float) -> None:
    with pytest.raises(ValueError, match="ttl"):
        checked(ttl)


@pytest.mark.parametrize("ttl", [True, "5", [1]])
def test_a_ttl_of_another_type_is_refused(ttl: Any) -> None:
    with pytest.raises(TypeError):
        checked(ttl)


def test_a_row_lives_at_least_its_ttl() -> None:
    clock = lambda: 1.00049  # noqa: E731
    assert now_ms(clock) == 1000
    assert expires_ms(clock, 0.0004) == 1002
    assert expires_ms(clock, None) == NEVER


def test_the_statement_quotes_names() -> None:
    sql = Table("a`b", database="d", key="my key", key_bytes=64).create_sql()
    assert sql.startswith(
        "CREATE TABLE `d`.`a``b` (\n  `my key` VARBINARY(64) NOT NULL PRIMARY KEY"
    )


@pytest.mark.parametrize("wrong", [{"name": ""}, {"key": None}, {"key_bytes": 0}])
def test_a_table_without_its_names_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"name|width"):
        Table(**wrong)
